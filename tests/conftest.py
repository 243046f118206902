"""What every test has: quiet TensorFlow, fixed seeds, and real data where it is present."""

import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import pytest

# TensorFlow's graphs are many objects that live long: looking through them for cycles took a seventh of the time.
gc.set_threshold(100_000, 20, 10)

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    """Every test starts from the same seeds; TensorFlow is not imported for a test that does without."""
    np.random.seed(0)
    if "tensorflow" in sys.modules:
        from tensorflow.python.eager import context

        # A seed also makes TensorFlow forget its kernels, for those of random operations that count their calls, which
        # no test draws from; to make all others anew took a tenth of the time.
        with monkeypatch.context() as patched:
            patched.setattr(context.pywrap_tfe, "TFE_ContextClearCaches", lambda handle: None)
            sys.modules["tensorflow"].keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and programs beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder `shared` beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def fashion(shared: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fashion-MNIST: x (n, 28, 28, 1) float32 in [0, 1] and integer labels; 2 000 to train, 1 000 to test."""
    with np.load(shared / "data" / "fashion_mnist.npz") as file:
        x, y, x_test, y_test = (file[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    scaled = [(a[:n, ..., None] / 255.0).astype("float32") for a, n in ((x, 2000), (x_test, 1000))]
    return scaled[0], y[:2000].astype("int64"), scaled[1], y_test[:1000].astype("int64")


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: x (1797, 8, 8, 1) float32 in [0, 1] and integer labels."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8, 1) / 16.0).astype("float32"), labels.astype("int64")
