"""Fashion-MNIST, read from the file that --data names."""

import argparse
from pathlib import Path

import numpy as np

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "fashion_mnist.npz"


def add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, default=SHARED, metavar="FILE.npz", help="Fashion-MNIST: x_train, y_train, x_test, y_test"
    )


def load(path: Path, train: int = 12_000, test: int = 10_000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images [N, 28, 28, 1] float32 in [0, 1] and labels, the first of each part."""
    if not path.is_file():
        raise SystemExit(f"needs Fashion-MNIST as an .npz file; there is none at {path}: name it with --data")
    with np.load(path) as file:
        x, y, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    return _scaled(x[:train]), y[:train].astype("int64"), _scaled(x_test[:test]), y_test[:test].astype("int64")


def _scaled(images: np.ndarray) -> np.ndarray:
    return (images[..., None] / 255.0).astype("float32")
