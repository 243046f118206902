"""Students that are quantized or pruned while they learn: one `fit`."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

import tfcompress
from tests.distill.models import IMAGES, LABELS, X, Y, compiled, conv, dense, keras
from tfcompress.distill import AttentionTransfer, Distiller, Features, Logits, MutualLearning
from tfcompress.prune import ConstantSparsity, Pruning


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


def test_pruned_and_quantized_at_once(teacher):
    student = tfcompress.quantize_model(conv(4))
    distiller = compiled(Distiller(teacher, student, [Logits(4.0), Features("conv", "conv")]))
    pruning = Pruning(ConstantSparsity(0.5, begin_step=0))
    distiller.fit(IMAGES, LABELS, batch_size=8, epochs=2, verbose=0, callbacks=[pruning])
    final = tfcompress.finalize(student)
    kernels = [w for w in final.get_weights() if w.ndim == 4]
    assert kernels and all(np.mean(kernel == 0) >= 0.5 for kernel in kernels)


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
