"""Students that are quantized or pruned while they learn: one `fit`."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

import tfcompress
from tests.distill.models import IMAGES, LABELS, X, Y, compiled, conv, dense, keras
from tfcompress.distill import AttentionTransfer, Distiller, Features, Logits, MutualLearning, SelfDistiller
from tfcompress.factorize import NuclearNorm
from tfcompress.prune import (
    L1,
    ChannelPruning,
    ConstantSparsity,
    GroupLasso,
    KeepZeros,
    Pruning,
    PruningSummaries,
    Slimming,
)
from tfcompress.quantize import FreezeBatchNorm


@pytest.fixture
def teacher():
    return compiled(conv(6))


def test_a_quantized_student_learns_and_its_ranges_follow(teacher):
    student = tfcompress.quantize_model(conv(4, activation="softmax"))
    losses = [Logits(4.0), Features("conv", "conv"), AttentionTransfer("relu", "relu")]
    distiller = compiled(Distiller(teacher, student, losses), logits=False, rate=0.01, jit_compile=False)
    assert distiller.distillation_losses[0].kinds == ("logits", "softmax")
    before = [np.array(w) for w in student.weights]
    distiller.fit(IMAGES, LABELS, batch_size=8, epochs=2, verbose=0)
    moved = [name.name for name, old in zip(student.weights, before, strict=True) if np.abs(name - old).max() > 0]
    assert any("observed" in name or "range" in name for name in moved) and any("kernel" in name for name in moved)
    final = tfcompress.finalize(student)
    assert final.count_params() <= student.count_params()
    assert np.isfinite(final.predict(IMAGES, verbose=0)).all()


def test_a_quantized_student_is_compared_by_its_logits():
    """Probabilities below 1/512 are zero in 8 bits: their logarithms are lost, and so are their gradients."""
    teacher, plain = dense(9), dense(8, "softmax")
    kernel, bias = plain.get_layer("out").get_weights()
    plain.get_layer("out").set_weights([20 * kernel, bias])
    hidden = np.maximum(X @ plain.get_weights()[0] + plain.get_weights()[1], 0)
    student = tfcompress.calibrate(tfcompress.quantize_model(plain), X)
    distiller = Distiller(teacher, student, Logits(4.0), student_loss_weight=0.0)
    found = compiled(distiller, logits=False).evaluate(X, Y, verbose=0, return_dict=True)["distillation_loss"]
    p = softmax(np.asarray(teacher(X), "float64") / 4, -1)
    expected = np.mean(16 * entropy(p, softmax(hidden @ kernel * 20 / 4, -1), axis=-1))
    lost = np.mean(16 * entropy(p, softmax(np.log(np.maximum(student(X), 1e-12)) / 4, -1), axis=-1))
    assert lost > 1.2 * expected
    np.testing.assert_allclose(found, expected, rtol=0.1)


def test_a_quantized_student_is_saved_alone(teacher, tmp_path):
    student = tfcompress.quantize_model(conv(4))
    distiller = compiled(Distiller(teacher, student, Logits(4.0)))
    distiller.fit(IMAGES, LABELS, verbose=0)
    distiller.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    np.testing.assert_allclose(loaded(IMAGES), student(IMAGES), atol=1e-6)


def test_a_student_is_pruned_while_it_learns(teacher):
    student = conv(4)
    distiller = compiled(Distiller(teacher, student, Logits(4.0)))
    pruning = Pruning(ConstantSparsity(0.5, begin_step=0))
    distiller.fit(IMAGES, LABELS, batch_size=8, epochs=2, verbose=0, callbacks=[pruning])
    kernel = student.get_layer("conv").get_weights()[0]
    assert np.mean(kernel == 0) == 0.5  # 36 weights, 18 zeros


def test_a_students_channels_go_while_it_learns(teacher):
    student = conv(16)
    distiller = compiled(Distiller(teacher, student, [Logits(4.0), Features("relu", "relu")]))
    pruning = ChannelPruning(0.5, rounds=2)
    distiller.fit(IMAGES, LABELS, batch_size=8, epochs=2, verbose=0, callbacks=[pruning])
    small = pruning.shrink()
    assert [tuple(w.shape) for w in small.trainable_weights] == [(3, 3, 1, 8), (8,), (8,), (8, 3), (3,)]
    np.testing.assert_allclose(small(IMAGES), student(IMAGES), rtol=1e-4, atol=1e-5)
    assert np.count_nonzero(distiller.projections[1].get_weights()[0]) == 16 * 6
    peers = compiled(MutualLearning([conv(16), conv(16)]))
    with pytest.raises(ValueError, match=r"`ChannelPruning` must be in the training of one model.*which trains 2"):
        peers.fit(IMAGES, LABELS, verbose=0, callbacks=[ChannelPruning(0.5)])


def test_pruned_and_quantized_at_once(teacher):
    student = tfcompress.quantize_model(conv(4))
    distiller = compiled(Distiller(teacher, student, [Logits(4.0), Features("conv", "conv")]))
    pruning = Pruning(ConstantSparsity(0.5, begin_step=0))
    distiller.fit(IMAGES, LABELS, batch_size=8, epochs=2, verbose=0, callbacks=[pruning])
    final = tfcompress.finalize(student)
    kernels = [w for w in final.get_weights() if w.ndim == 4]
    assert kernels and all(np.mean(kernel == 0) >= 0.5 for kernel in kernels)


def taught():
    """A student of 144 weights in kernels beside a projection of 768."""
    keras.utils.set_random_seed(0)
    student = dense(16)
    distiller = compiled(Distiller(dense(48), student, [Features("hidden", "hidden"), Logits(2.0)]))
    return distiller, [student], distiller.projections[0].weights


def headed():
    keras.utils.set_random_seed(0)
    model = dense(16)
    distiller = compiled(SelfDistiller(model, ["hidden"]))
    return distiller, [model], [weight for head in distiller.heads for weight in head.weights]


def mutual():
    keras.utils.set_random_seed(0)
    peers = [dense(16), dense(8)]
    return compiled(MutualLearning(peers)), peers, []


def kernels(models):
    return [np.array(weight) for model in models for weight in model.weights if len(weight.shape) > 1]


def zeros(arrays):
    return np.mean(np.concatenate([np.ravel(array) for array in arrays]) == 0)


def norms(kernel):
    return np.linalg.svd(kernel, compute_uv=False).sum()


def lasso(kernel):
    return np.sqrt(len(kernel)) * np.linalg.norm(kernel, axis=0).sum()


@pytest.mark.parametrize("budget", ["global", "erk"])
@pytest.mark.parametrize("make", [taught, headed, mutual])
def test_zeros_are_those_of_the_products_alone(make, budget):
    model, products, spare = make()
    pruning, rows = Pruning(ConstantSparsity(0.8, begin_step=0), budget=budget), PruningSummaries()
    before = [np.array(weight) for weight in spare]
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[pruning, rows])
    found = kernels(products)
    assert zeros(found) == pytest.approx(0.8, abs=len(found) / sum(kernel.size for kernel in found))
    assert pruning.sparsity() == pytest.approx(zeros(found))
    assert rows.rows[-1][2] == pytest.approx(zeros(found))
    for old, weight in zip(before, spare, strict=True):
        assert len(weight.shape) < 2 or not np.any(np.asarray(weight) == 0)
        assert np.abs(np.asarray(weight) - old).max() > 0  # the optimizer trains it as ever


@pytest.mark.parametrize("make", [taught, headed, mutual])
@pytest.mark.parametrize(("kind", "of"), [(NuclearNorm, norms), (L1, lambda w: np.abs(w).sum()), (GroupLasso, lasso)])
def test_penalties_are_on_the_products_alone(make, kind, of):
    model, products, _ = make()
    penalty = kind(0.5)
    penalty.attach(model)
    found = sum(float(loss) for loss in model.losses)
    assert found == pytest.approx(0.5 * sum(map(of, kernels(products))), rel=1e-4)
    penalty.detach()
    assert not model.losses


def test_a_selection_names_layers_of_the_products():
    distiller, (student,), _ = taught()
    path = f"{student.name}/out"
    for select, expected in (("hidden", 96), (keras.layers.Dense, 144), (student.name, 144), (path, 48)):
        pruning = Pruning(ConstantSparsity(0.5), select=select)
        pruning.attach(distiller)
        assert sum(np.prod(target.shape) for target in pruning.targets) == expected
    for select in (distiller.projections[0], distiller.projections[0].name):
        with pytest.raises(ValueError, match=r"`select` entry .* selects no layer of 'distiller'\. There are: "):
            Pruning(ConstantSparsity(0.5), select=select).attach(distiller)


def test_zeros_of_a_projection_are_not_held():
    distiller, (student,), (projection,) = taught()
    hidden, bias, *rest = student.get_weights()
    student.set_weights([hidden * (np.arange(16) % 2), bias, *rest])
    projection.assign(np.eye(16, 48))
    distiller.fit(X, Y, batch_size=8, verbose=0, callbacks=[KeepZeros()])
    assert zeros(kernels([student])[:1]) == 0.5
    assert zeros([np.asarray(projection)]) < 0.5


class Normalized(Features):
    """Compares what a normalization in front of the projection makes of the student's layer."""

    def projection(self, teacher, student):
        layers = [keras.layers.BatchNormalization(), keras.layers.Dense(teacher[-1])]
        return keras.Sequential([keras.Input(student[1:]), *layers])


def test_normalizations_for_training_only_are_neither_frozen_nor_penalized(teacher):
    student = conv(4)
    distiller = compiled(Distiller(teacher, student, Normalized("conv", "conv")))
    penalty = Slimming(0.5)
    penalty.attach(distiller)
    assert [float(loss) for loss in distiller.losses] == [0.5 * 4]
    penalty.detach()
    distiller.fit(IMAGES, LABELS, verbose=0, callbacks=[FreezeBatchNorm(0)])
    assert not student.get_layer("norm").trainable and distiller.projections[0].layers[0].trainable


class Weighted(Distiller):
    """Has a matrix of its own."""

    def __init__(self, *args):
        super().__init__(*args)
        self.matrix = self.add_weight(name="matrix", shape=(40, 40), initializer="ones")


def test_weights_of_a_distiller_itself_are_for_training_only():
    student = dense()
    pruning = Pruning(ConstantSparsity(0.5))
    pruning.attach(Weighted(dense(9), student, Logits(2.0)))
    assert [target.name for target in pruning.targets] == ["hidden/kernel", "out/kernel"]


def test_peers_are_saved_each_in_a_file_and_measured_with_weights(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(12, 4)).astype("float32"), np.arange(12) % 3
    peers = [keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]) for _ in range(2)]
    learning = MutualLearning(peers)
    learning.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), weighted_metrics=["accuracy"])
    weights = (np.arange(12) < 6).astype("float32")
    learning.fit(x, y, sample_weight=weights, verbose=0,
                 callbacks=[keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"))])  # fmt: skip
    found = learning.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    for number, peer in enumerate(peers):
        right = np.argmax(peer.predict(x, verbose=0), -1) == y
        assert found[f"peer_{number}_accuracy"] == pytest.approx(right[:6].mean(), abs=1e-6)
        loaded = keras.models.load_model(tmp_path / f"best_peer_{number}.keras")
        np.testing.assert_allclose(loaded(x), peer(x), atol=1e-6)
