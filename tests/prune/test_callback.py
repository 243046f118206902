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
from tfcompress.prune import (
    L1,
    ConstantSparsity,
    Iterative,
    KeepZeros,
    OneShot,
    PolynomialDecay,
    Pruning,
    Random,
    Taylor,
    Wanda,
)

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
    assert [share for _, share in history(pruning)] == [0.75] * 4 + [0.25] * 4 and max(zeros(model)) < 0.75


def sparse(share=0.75):
    """A network whose smallest weights are zero."""
    model = network()
    for name in ("first", "second", "head"):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel * (np.abs(kernel) > np.quantile(np.abs(kernel), share)), bias])
    return compiled(model)


@pytest.mark.parametrize("score", ["magnitude", "random", "sparsegpt"])
def test_zeros_that_a_model_brings_stay_while_the_schedule_asks_for_fewer(score):
    model = sparse()
    places = [kernel == 0 for kernel in kernels(model)]
    pruning = Pruning(ConstantSparsity(0.5, frequency=3), score=score)
    pruning.score.batches = 1
    for place, kernel in zip(places, kernels(fit(model, pruning)), strict=True):
        np.testing.assert_array_equal(kernel == 0, place)
    rising = gradual(final=0.875, frequency=3)
    for place, kernel in zip(places, kernels(fit(sparse(), rising)), strict=True):
        assert np.all(kernel[place] == 0)
    assert [share for _, share in history(rising)] == [0.75, pytest.approx(0.7639, abs=5e-3), 0.875]


def test_decisions_are_made_of_steps_that_the_optimizer_makes_after_one_that_it_left_out():
    optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.SGD(0.01))
    model, pruning = compiled(network(), optimizer), gradual(frequency=1)
    x = X.copy()
    x[8:12] = np.inf  # the third of 8 batches has no finite gradients
    model.fit(x, Y, batch_size=4, verbose=0, shuffle=False, callbacks=[pruning])
    counted = 8 if keras.Model.__module__.startswith("tf_keras") else 7  # tf_keras counts what it leaves out
    assert int(tf.convert_to_tensor(optimizer.iterations)) == counted
    assert [step for step, _ in history(pruning)] == list(range(7))


@pytest.mark.skipif(keras.Model.__module__.startswith("tf_keras"), reason="tf_keras accumulates no gradients")
def test_decisions_are_made_of_steps_with_gradients_of_several_batches():
    model, pruning = compiled(network(), keras.optimizers.SGD(0.01, gradient_accumulation_steps=2)), gradual(end=4)
    assert zeros(fit(model, pruning)) == [0.75, 0.75, 0.75]
    assert [step for step, _ in history(pruning)] == [0, 2, 4]


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


def loop(model, pruning, steps, optimizer=None):
    """Steps of one's own; with the optimizer that the model is compiled with, or another one."""
    optimizer = optimizer or model.optimizer
    pruning.attach(model)
    for _ in range(steps):
        pruning.step()
        with tf.GradientTape() as tape:
            loss = LOSS(Y[:4], model(X[:4], training=True))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
    pruning.on_train_end()
    return model


def test_a_loop_ends_with_the_decision_that_is_due_after_it():
    for model in (network(), compiled(network())):
        pruning = gradual(end=4)
        own = keras.optimizers.SGD(0.1) if getattr(model, "optimizer", None) is None else None
        assert zeros(loop(model, pruning, 4, own)) == [0.75, 0.75, 0.75]
        assert [step for step, _ in history(pruning)] == [0, 2, 4]


@pytest.mark.parametrize(
    "score", [lambda: "taylor", lambda: "wanda", lambda: Taylor((X, Y)), lambda: Wanda(X)], ids=list("abcd")
)
def test_scores_look_at_a_loop_of_ones_own(score):
    pruning = Pruning(OneShot(0.5), score=score())
    pruning.score.batches = 2
    model = loop(compiled(network()), pruning, 3)
    assert zeros(model) == [0.5, 0.5, 0.5]
    assert all("call" not in vars(target.layer) for target in pruning.targets)
    assert not {"apply", "apply_gradients"} & set(vars(model.optimizer))


def test_a_score_serves_two_models_in_turn():
    score, small = Random(), keras.Sequential([keras.Input((4,)), layers.Dense(6)])
    prunings = [Pruning(ConstantSparsity(0.5, frequency=1), score=score) for _ in range(2)]
    for pruning, model in zip(prunings, (compiled(network()), small), strict=True):
        pruning.attach(model)
    for step, pruning in itertools.product(range(2), prunings):
        pruning.step(step)
        assert pruning.sparsity() == 0.5


def test_gradients_need_an_optimizer_to_look_at():
    with pytest.raises(ValueError, match="looks at the steps of the model's optimizer: compile 'mine' first"):
        model = keras.Sequential([keras.Input((4,)), layers.Dense(6)], name="mine")
        Pruning(OneShot(0.5), score="taylor").attach(model)


def test_an_optimizer_that_makes_no_steps_in_a_loop_is_told():
    with pytest.warns(UserWarning, match=r"was called 10 times, but .* stands at step 0: give the step"):
        loop(compiled(network()), gradual(), 12, keras.optimizers.SGD(0.1))


@pytest.mark.parametrize("score", ["taylor", "wanda"])
def test_a_decision_that_was_never_made_is_told(score):
    pruning = Pruning(OneShot(0.5), score=score)
    pruning.score.batches = 9  # of 8
    with pytest.warns(UserWarning, match=f"(?i)`score` {score} .* decision of step 0 for 50% zeros was not made"):
        fit(compiled(network()), pruning)


class Restores(keras.callbacks.Callback):
    """Sets the weights of the first epoch when training ends, as EarlyStopping may."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.weights = self.model.get_weights()

    def on_train_end(self, logs=None):
        self.model.set_weights(self.weights)


def test_weights_that_another_callback_sets_at_the_end_are_put_onto_the_zeros():
    pruning, restores = Pruning(OneShot(0.75, begin_step=8)), Restores()
    model = fit(compiled(network()), pruning, restores, epochs=2)
    assert min(np.min(np.abs(w)) for w in restores.weights if w.ndim > 1) > 0
    assert zeros(model) == [0.75, 0.75, 0.75]
    places = [kernel == 0 for kernel in kernels(model)]
    dense = network().get_weights()
    restores.on_train_end = lambda logs=None: model.set_weights(dense)
    fit(model, KeepZeros(), pruning, restores)
    for place, kernel, old in zip(places, kernels(model), (w for w in dense if w.ndim > 1), strict=True):
        np.testing.assert_array_equal(kernel, np.where(place, 0, old))


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
        Pruning(OneShot(0.8), pattern="2:4")
    with pytest.raises(ValueError, match=r"`budget` asks for 75.0% zeros, `pattern` NofM\(n=2, m=4\) has at most"):
        Pruning(OneShot(0.5), pattern="2:4", budget={"first": 0.75})
    with pytest.raises(ValueError, match=r"`schedule` asks for 80.0% zeros"):
        fit(compiled(network()), Pruning(lambda step: (True, 0.8), pattern="2:4"))


def test_steps_that_passed_before_the_callback_came_are_told_and_caught_up_with():
    model = fit(compiled(network()))
    with pytest.warns(UserWarning, match="goes on at step 8 .* finds no zeros"):
        fit(model, gradual(end=4))
    assert zeros(model) == [0.75, 0.75, 0.75]
    # the last decision was due at 6: 0.75 * (1 - (1 - 6 / 16)³) = 0.567
    with pytest.warns(UserWarning, match="57% of the weights become zero at once"):
        fit(fit(compiled(network())), gradual(end=16, frequency=6))


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


def test_there_are_no_zeros_before_there_is_a_model():
    assert Pruning(OneShot(0.5)).sparsity() == 0.0


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`score` must be one of"):
        Pruning(OneShot(0.5), score="size")
    with pytest.raises(ValueError, match=r"`Pruning.step` needs a model: call `pruning.attach\(model\)`"):
        Pruning(OneShot(0.5)).step()
    with pytest.raises(ValueError, match="selects no layer"):
        Pruning(OneShot(0.5), select="frist").attach(network())


@pytest.mark.parametrize(("score", "begin", "words"), [("magnitude", 0, "head/kernel' has 32 of 32"),
                                                       ("taylor", 6, "first/kernel' has 216 of 216")])  # fmt: skip
def test_what_is_no_number_is_no_reason_for_a_zero(score, begin, words):
    model = compiled(network())
    model.get_layer("head").kernel.assign(np.full(model.get_layer("head").kernel.shape, np.nan, "float32"))
    with pytest.raises(ValueError, match=f"'{words} scores that are no numbers"):
        fit(model, Pruning(OneShot(0.5, begin), score=score))


def test_what_is_no_model_of_this_flavor_is_refused():
    class Model:  # as the other flavor's, from here
        __module__ = "keras.src.models" if "tf_keras" in tf.keras.Model.__module__ else "tf_keras.src.models"

    other = "Keras 3|keras 3" if "tf_keras" in tf.keras.Model.__module__ else "tf_keras"
    for attach in (Pruning(OneShot(0.5)).attach, KeepZeros().attach, L1(0.1).attach):
        with pytest.raises(TypeError, match=f"is a model of ({other})"):
            attach(Model())
