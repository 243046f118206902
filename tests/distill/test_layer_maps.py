"""Which layer teaches which."""

import pytest

from tests.distill.models import X, Y, compiled, keras, layers
from tfcompress.distill import AttentionMatrices, AttentionTransfer, Distiller, Features, layer_map
from tfcompress.distill.layer_maps import places


def chain(depth, width=4, prefix="block"):
    hidden = [layers.Dense(width, name=f"{prefix}_{number}") for number in range(depth)]
    return keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, name="out")])


@pytest.mark.parametrize(("teacher", "student", "how", "expected"), [
    (12, 6, "uniform", [1, 3, 5, 7, 9, 11]),  # g(m) = 2 m of TinyBERT, counted from 1
    (12, 4, "uniform", [2, 5, 8, 11]), (12, 4, "first", [0, 1, 2, 3]), (12, 4, "last", [8, 9, 10, 11]),
    (5, 2, "uniform", [2, 4]), (3, 3, "uniform", [0, 1, 2]), (6, 2, [0, -1], [0, 5]),
])  # fmt: skip
def test_maps(teacher, student, how, expected):
    assert places(teacher, student, how) == expected


def test_every_other_layer_teaches():
    teacher, student = chain(4, 5), chain(2, 3)
    pairs = layer_map(Features, teacher, student, "block_*")
    assert [(p.teacher.name, p.student.name) for p in pairs] == [("block_1", "block_0"), ("block_3", "block_1")]
    distiller = Distiller(teacher, student, pairs)
    assert [tuple(p.kernel.shape) for p in distiller.projections] == [(3, 5), (3, 5)]
    compiled(distiller).fit(X, Y, verbose=0)


def test_names_may_differ_and_options_reach_the_loss():
    teacher, student = chain(2), chain(2, prefix="layer")
    pairs = layer_map(AttentionTransfer, teacher, student, ("block_*", "layer_*"), "first", power=1.0)
    assert [p.student.name for p in pairs] == ["layer_0", "layer_1"]
    assert [p.power for p in pairs] == [1.0, 1.0]  # 2 when nothing is said


def test_attention_layers_by_their_class():
    def attending(depth):
        x = inputs = keras.Input((5, 4))
        for number in range(depth):
            x = layers.MultiHeadAttention(2, 2, name=f"attention_{number}")(x, x)
        return keras.Model(inputs, x)

    for select in (layers.MultiHeadAttention, "attention_*"):  # "attention_output" is inside each of them
        pairs = layer_map(AttentionMatrices, attending(4), attending(2), select)
        assert [str(p.teacher) for p in pairs] == ["attention_1:scores", "attention_3:scores"]


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="Received: 2 of the teacher, 4 of the student"):
        layer_map(Features, chain(2), chain(4), "block_*")
    with pytest.raises(ValueError, match="`how` must name one of 4 layers of the teacher for each of the student's 2"):
        places(4, 2, [0, 7])
    with pytest.raises(ValueError, match=r"`how` must name one of 4 .*Received: how=\[0.7, 1.2\]"):
        places(4, 2, [0.7, 1.2])
    with pytest.raises(ValueError, match="`how` must be one of"):
        places(4, 2, "middle")
    with pytest.raises(ValueError, match="selects no layer"):
        layer_map(Features, chain(2), chain(2), "nothing*")
