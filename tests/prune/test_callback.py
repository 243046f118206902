"""Pruning in `fit`, in loops, with models of every kind; what it decides, holds, and says."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import tfcompress
from tests.prune.small import LOSS, X, Y, compiled, fit, kernels, network, zeros
from tfcompress.core.projected import mask_of
from tfcompress.prune import ConstantSparsity, Iterative, OneShot, PolynomialDecay, Pruning

keras = tf.keras
layers = keras.layers
SIZES = np.array([216, 576, 32])


def gradual(final=0.75, end=6, frequency=2, **arguments):
    return Pruning(PolynomialDecay(0.0, final, 0, end, frequency=frequency), **arguments)


def history(pruning, place=0):
    return pruning.targets[place].mask.history


def test_decisions_come_when_they_are_due_and_meet_the_share():
    pruning = gradual()
    model = fit(compiled(network(), run_eagerly=False), pruning)
    assert [step for step, _ in history(pruning)] == [0, 2, 4, 6]
    # 0.75 * (1 - (1 - s / 6)³) at 0, 2, 4, 6, of 216 weights, rounded
    shares = [1 - round(216 * (1 - 0.75 * (1 - (1 - s / 6) ** 3))) / 216 for s in (0, 2, 4, 6)]
    assert [share for _, share in history(pruning)] == pytest.approx(shares)
    assert zeros(model) == [0.75, 0.75, 0.75]
    assert pruning.sparsity() == pytest.approx(0.75)


@pytest.mark.parametrize("arguments", [{"steps_per_execution": 4}, {"jit_compile": True}])
def test_zeros_hold_in_steps_that_are_bundled_or_compiled(arguments):
    pruning = gradual(end=4)
    model = fit(compiled(network(), **arguments), pruning)
    assert zeros(model) == [0.75, 0.75, 0.75]
    expected = [0, 4] if "steps_per_execution" in arguments else [0, 2, 4]
    assert [step for step, _ in history(pruning)] == expected
    assert not np.array_equal(kernels(model)[0], kernels(network())[0])


def test_the_smallest_weights_go_and_the_rest_trains_as_without():
    model = compiled(network(), keras.optimizers.SGD(0.0))
    before = kernels(model)
    fit(model, Pruning(OneShot(0.5)))
    for old, new in zip(before, kernels(model), strict=True):
        order = np.argsort(np.abs(old).reshape(-1))
        expected = old.reshape(-1).copy()
        expected[order[: old.size // 2]] = 0
        np.testing.assert_array_equal(new.reshape(-1), expected)


def test_zeros_hold_after_the_callback_until_they_are_released():
    pruning = Pruning(ConstantSparsity(0.5))
    model = fit(compiled(network(), run_eagerly=False), pruning)
    places = [kernel == 0 for kernel in kernels(model)]
    fit(model)
    for place, kernel in zip(places, kernels(model), strict=True):
        np.testing.assert_array_equal(kernel == 0, place)
    pruning.release()
    fit(model)
    assert max(zeros(model)) < 0.1 and mask_of(model.get_layer("first").kernel) is None


def test_what_is_zero_stays_zero_while_the_share_rises():
    pruning = Pruning(Iterative(0.875, rounds=3, recovery_steps=2))
    model = compiled(network())
    pruning.attach(model)
    places = []
    for step in range(6):
        pruning.step(step)
        places.append(kernels(model)[1] == 0)
        model.train_on_batch(X[:4], Y[:4])
    assert [np.mean(p) for p in places] == pytest.approx([0.5, 0.5, 0.75, 0.75, 0.875, 0.875])
    assert all(np.all(later[earlier]) for earlier, later in itertools.pairwise(places))


def test_weights_come_back_when_the_share_falls():
    pruning = Pruning(lambda step: (True, [0.75, 0.25][step > 4]))
    model = fit(compiled(network()), pruning)
    assert history(pruning)[0] == (0, 0.75) and max(zeros(model)) < 0.75


def test_a_loop_of_ones_own_needs_one_call():
    model, optimizer = network(), keras.optimizers.Adam(1e-2)
    pruning = gradual()
    pruning.attach(model)

    @tf.function
    def train_step(x, y):
        variables = model.trainable_variables
        with tf.GradientTape() as tape:
            loss = LOSS(y, model(x, training=True))
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    before = kernels(model)[0]
    for _ in range(8):
        pruning.step()
        train_step(X[:4], Y[:4])
    assert zeros(model) == [0.75, 0.75, 0.75]
    assert [step for step, _ in history(pruning)] == [0, 2, 4, 6]
    assert not np.array_equal(kernels(model)[0][before != 0], before[before != 0])


def test_a_loop_without_keras_optimizers_projects_itself():
    model = network()
    pruning = Pruning(OneShot(0.5))
    pruning.attach(model)
    pruning.step(0)
    for variable in model.trainable_variables:
        variable.assign(tf.convert_to_tensor(variable) + 1.0)
    pruning.project()
    assert zeros(model) == [0.5, 0.5, 0.5]


def test_a_quantized_model_is_pruned_behind_its_wrappers():
    pruning = gradual()
    quantized = fit(compiled(tfcompress.quantize_model(network()), run_eagerly=False), pruning)
    assert [target.name.split("/")[0] for target in pruning.targets] == ["first", "second", "head"]
    assert zeros(quantized) == [0.75, 0.75, 0.75]
    assert zeros(tfcompress.finalize(quantized)) == pytest.approx([0.75, 0.75, 0.75], abs=0.05)


class Subclassed(keras.Model):
    """Layers in attributes and lists."""

    def __init__(self):
        super().__init__()
        self.parts = [layers.Conv2D(4, 3, activation="relu"), layers.Flatten()]
        self.head = layers.Dense(4)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return self.head(x)


def test_a_subclassed_model_is_pruned():
    model = Subclassed()
    model(X[:1])
    assert zeros(fit(compiled(model), gradual())) == [0.75, 0.75]


def test_embeddings_recurrent_kernels_and_attention_are_kernels_norms_and_biases_are_none():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, name="table")(inputs)
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4, name="attention")(x, x))
    x = layers.SeparableConv1D(6, 3, name="separable")(x)
    x = layers.PReLU()(layers.BatchNormalization()(x))
    model = keras.Model(inputs, layers.Dense(3, name="head")(layers.LSTM(5, name="lstm")(x)))
    pruning = Pruning(OneShot(0.5))
    pruning.attach(model)
    names = sorted(tuple(target.shape) for target in pruning.targets)
    expected = [(20, 8), *[(8, 2, 4)] * 3, (2, 4, 8), (1, 8, 6), (6, 20), (5, 20), (5, 3)]
    assert names == sorted(expected)


def test_a_selection_names_layers_and_what_is_in_them():
    inner = keras.Sequential([keras.Input((6, 6, 3)), layers.DepthwiseConv2D(3), layers.Conv2D(4, 1)], name="inner")
    model = keras.Sequential([keras.Input((6, 6, 3)), inner, layers.Flatten(), layers.Dense(4, name="head")])
    for select, count in ((None, 2), ("inner", 2), (layers.Dense, 1), (["head", layers.DepthwiseConv2D], 2)):
        pruning = Pruning(OneShot(0.5), select=select)
        pruning.attach(model)
        assert len(pruning.targets) == count, select


def test_what_is_frozen_is_left_alone():
    model = network()
    model.get_layer("first").trainable = False
    assert zeros(fit(compiled(model), Pruning(OneShot(0.5)))) == [0.0, 0.5, 0.5]


def test_patterns_and_budgets_reach_the_kernels():
    model = fit(compiled(network()), Pruning(OneShot(0.5), pattern="2:4", select=["second", "head"]))
    for kernel in kernels(model)[1:]:
        groups = kernel.reshape(*kernel.shape[:-2], -1, 4, kernel.shape[-1])
        assert ((groups == 0).sum(-2) == 2).all()
    model = fit(compiled(network()), Pruning(OneShot(0.5), pattern="channels", budget={"first": 0.25}))
    dead = [int((kernel == 0).reshape(-1, kernel.shape[-1]).all(0).sum()) for kernel in kernels(model)]
    assert dead == [2, 4, 2]


def test_a_share_that_a_pattern_cannot_have_is_refused():
    with pytest.raises(ValueError, match=r"asks for 80.0% zeros, `pattern` NofM\(n=2, m=4\) has at most 50.0%"):
        fit(compiled(network()), Pruning(OneShot(0.8), pattern="2:4"))


def test_steps_that_passed_before_the_callback_came_are_told_and_caught_up_with():
    model = fit(compiled(network()))
    with pytest.warns(UserWarning, match="goes on at step 8 .* finds no zeros"):
        fit(model, gradual(end=4))
    assert zeros(model) == [0.75, 0.75, 0.75]


def test_a_decision_due_when_training_ends_is_made():
    pruning = gradual(end=8)
    assert zeros(fit(compiled(network()), pruning)) == [0.75, 0.75, 0.75]
    assert [step for step, _ in history(pruning)] == [0, 2, 4, 6, 8]


def test_one_callback_serves_models_and_fits_one_after_the_other():
    pruning = gradual()
    fit(compiled(network(), run_eagerly=False), pruning)
    other = fit(compiled(network(seed=1)), pruning)
    assert zeros(other) == [0.75, 0.75, 0.75] and len(history(pruning)) == 4
    fit(compiled(other), pruning)  # compiled anew: steps count from 0 again
    assert [step for step, _ in history(pruning)] == [0, 2, 4, 6] * 2


def test_the_summary_tells_zeros_and_their_history():
    model = fit(compiled(network()), gradual())
    text = str(tfcompress.summary(model))
    assert "kernel 75.0% zeros held (step 0: 0.0%, 2:" in " ".join(text.split())


def test_a_file_loads_where_tfcompress_is_not_installed(tmp_path):
    model = fit(compiled(network(), keras.optimizers.SGD(0.01)), Pruning(OneShot(0.5)))
    model.save(tmp_path / "model.keras")
    code = (
        "import sys; sys.modules['tfcompress'] = None\n"
        "import tensorflow as tf\n"
        "model = tf.keras.models.load_model(sys.argv[1])\n"
        "print([float((w == 0).mean()) for w in model.get_weights() if w.ndim > 1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.keras")], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[0.5, 0.5, 0.5]", done.stderr[-2000:]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`score` must be one of"):
        Pruning(OneShot(0.5), score="size")
    with pytest.raises(ValueError, match=r"`Pruning.step` needs a model: call `pruning.attach\(model\)`"):
        Pruning(OneShot(0.5)).step()
    with pytest.raises(ValueError, match="selects no layer"):
        Pruning(OneShot(0.5), select="frist").attach(network())
