"""Shallower students out of their teachers' layers."""

import numpy as np
import pytest

from tests.distill.models import X, dense, keras, layers
from tfcompress.distill import blocks, student_from
from tfcompress.prune import prune_channels


def chain(depth=4):
    hidden = [layers.Dense(5, "tanh", name=f"hidden_{number}") for number in range(depth)]
    return keras.Sequential([keras.Input((6,)), layers.Dense(5, name="first"), *hidden, layers.Dense(3, name="out")])


def test_every_other_layer_with_its_weights():
    teacher = chain()
    student = student_from(teacher, [0, 2])
    x = X
    for name in ("first", "hidden_0", "hidden_2", "out"):
        kernel, bias = teacher.get_layer(name).get_weights()
        x = x @ kernel + bias
        x = np.tanh(x) if "hidden" in name else x
    np.testing.assert_allclose(student(X), x, rtol=1e-4, atol=1e-5)


def test_the_teacher_is_left_alone():
    teacher = chain()
    before = teacher(X).numpy()
    student = student_from(teacher)
    student.set_weights([w * 0 for w in student.get_weights()])
    np.testing.assert_array_equal(teacher(X), before)
    assert not {id(w) for w in student.weights} & {id(w) for w in teacher.weights}
    assert len(teacher.layers) == 6


@pytest.mark.parametrize(("keep", "expected"), [
    (0.5, [0, 3]), (3, [0, 2, 3]), ([1], [1]), ([-1, 0], [0, 3]), (range(4), [0, 1, 2, 3]), (0.01, [0]),
])  # fmt: skip
def test_which_are_kept(keep, expected):
    kept = [layer.name for layer in student_from(chain(), keep).layers if "hidden" in layer.name]
    assert kept == [f"hidden_{place}" for place in expected]


def test_twelve_blocks_become_distilberts_six():
    kept = [layer.name for layer in student_from(chain(12), 6).layers if "hidden" in layer.name]
    assert kept == [f"hidden_{place}" for place in (0, 2, 4, 7, 9, 11)]


def transformer(depth, before=True):
    """Tokens of which 0 is padding; encoder layers written out, normalized before or behind their halves."""
    tokens = keras.Input((7,), dtype="int32")
    mask = layers.Lambda(lambda t: t[:, None] > 0, output_shape=(1, 7), name="mask")(tokens)
    x = layers.Embedding(9, 8, name="embedding")(tokens)
    for number in range(depth):
        y = layers.LayerNormalization(name=f"norm_a{number}")(x) if before else x
        y = layers.MultiHeadAttention(2, 4, name=f"mha_{number}")(y, y, attention_mask=mask)
        x = layers.Add(name=f"add_a{number}")([x, y])
        x = x if before else layers.LayerNormalization(name=f"norm_a{number}")(x)
        y = layers.LayerNormalization(name=f"norm_b{number}")(x) if before else x
        y = layers.Dense(8, name=f"down_{number}")(layers.Dense(16, "relu", name=f"up_{number}")(y))
        x = layers.Add(name=f"add_b{number}")([x, y])
        x = x if before else layers.LayerNormalization(name=f"norm_b{number}")(x)
    return keras.Model(tokens, layers.Dense(3, name="out")(layers.GlobalAveragePooling1D()(x)))


@pytest.mark.parametrize("before", [True, False])
def test_encoder_layers_written_out_with_a_mask_are_blocks(before):
    teacher = transformer(4, before)
    found = blocks(teacher)
    assert len(found) == 4
    assert all({f"mha_{i}", f"down_{i}", f"norm_a{i}", f"norm_b{i}"} <= set(block) for i, block in enumerate(found))
    student, expected = student_from(teacher, [1, 2]), transformer(2, before)
    kinds = ("norm_a", "norm_b", "mha_", "up_", "down_")
    names = {f"{kind}{a}": f"{kind}{b}" for a, b in ((0, 1), (1, 2)) for kind in kinds}
    for layer in expected.layers:
        if layer.weights:
            layer.set_weights(teacher.get_layer(names.get(layer.name, layer.name)).get_weights())
    x = np.random.default_rng(0).integers(0, 9, (4, 7)).astype("int32")
    np.testing.assert_allclose(student(x), expected(x), rtol=1e-4, atol=1e-5)


def test_identity_blocks_of_each_stage():
    x = inputs = keras.Input((8, 8, 3))
    for stage, (width, strides) in enumerate(((4, 1), (8, 2))):
        x = layers.Conv2D(width, 1, strides, name=f"enter_{stage}")(x)
        for number in range(2):
            y = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same", name=f"conv_{stage}{number}")(x))
            x = layers.ReLU()(layers.Add()([x, layers.ReLU()(y)]))
    teacher = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    found = [[name for name in block if "conv_" in name] for block in blocks(teacher)]
    assert found == [["conv_00"], ["conv_01"], ["conv_10"], ["conv_11"]]
    student = student_from(teacher, 0.5)
    assert [layer.name for layer in student.layers if "conv_" in layer.name] == ["conv_00", "conv_10"]
    assert student.output_shape == teacher.output_shape


class Encoder(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Dense(5, "relu")

    def call(self, x):
        return x + self.inner(x)


class Deep(keras.Model):
    def __init__(self):
        super().__init__()
        self.parts = [Encoder(name=f"encoder_{number}") for number in range(4)]
        self.last = layers.Dense(2)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return self.last(x)


def test_layers_of_ones_own_are_blocks_and_subclassed_models_are_opened():
    x = X[:, :5]
    inputs = keras.Input((5,))
    h = inputs
    for number in range(4):
        h = Encoder(name=f"encoder_{number}")(h)
    teacher = keras.Model(inputs, layers.Dense(2)(h))
    assert blocks(teacher) == [(f"encoder_{number}",) for number in range(4)]
    assert [type(layer).__name__ for layer in student_from(teacher, 2).layers].count("Encoder") == 2
    deep = Deep()
    deep(x)
    student = student_from(deep, [0, 3])
    h = x
    for number in (0, 3):
        h = deep.parts[number](h)
    np.testing.assert_allclose(student(x), deep.last(h), rtol=1e-4, atol=1e-5)


def test_narrower_as_well():
    teacher = keras.Sequential([keras.Input((6,)), *[layers.Dense(32, "relu") for _ in range(4)], layers.Dense(3)])
    student = prune_channels(student_from(teacher, 2), 0.5)
    assert [tuple(w.shape) for w in student.weights][-2:] == [(16, 3), (3,)]
    assert student.count_params() < teacher.count_params() / 4


def test_it_is_saved_and_loaded(tmp_path):
    student = student_from(chain())
    student.save(tmp_path / "student.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "student.keras")(X), student(X), rtol=1e-6)


def test_what_cannot_be_kept():
    with pytest.raises(ValueError, match="`teacher` must have blocks that repeat"):
        student_from(dense())
    with pytest.raises(ValueError, match=r"`keep` must be from 1 to the 4 blocks. Received: keep=5"):
        student_from(chain(), 5)
    with pytest.raises(ValueError, match="`keep` must be a share between 0 and 1"):
        student_from(chain(), 1.5)
    for keep in ([7], []):
        with pytest.raises(ValueError, match=r"`keep` must name at least one of the blocks \(0: hidden_0, "):
            student_from(chain(), keep)
    for keep in ([0.5], [True, False, True, False], np.array([0.0, 1.0])):
        with pytest.raises(TypeError, match="`keep` must hold whole numbers"):
            student_from(chain(), keep)
    with pytest.raises(TypeError, match="Received: keep='half'"):
        student_from(chain(), "half")
