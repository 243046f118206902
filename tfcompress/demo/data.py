"""Images and labels to train on: read, checked and scaled."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_SMALLEST = 8  # pixels a side: the network halves its image twice


@dataclass(frozen=True)
class Data:
    """Images ready for a network.

    Attributes:
        name: what the images are, for people.
        x_train: [N, height, width, channels] float32.
        y_train: [N] int64 in [0, classes).
        x_test: [M, height, width, channels] float32.
        y_test: [M] int64 in [0, classes).
        labels: the label that stands for each class, [classes].
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    labels: np.ndarray

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.labels)


def load(path: Path | None = None) -> Data:
    """Reads a file of images, or the digits of scikit-learn.

    Integer images are divided by the largest value of their type (255 for uint8), so they lie in [0, 1]; float images
    are taken as they are. Images without a channel axis get one.

    Args:
        path: an `.npz` file with `x_train` [N, height, width] or [N, height, width, channels], `y_train` [N],
            `x_test` and `y_test`; None takes scikit-learn's digits.

    Returns:
        The checked data.

    Raises:
        ValueError: the file is no such file, or an array of it cannot be trained on; says which and why.
        FileNotFoundError: there is no such file.
        ImportError: scikit-learn is needed and missing.
    """
    if path is None:
        return _digits()
    arrays = _read(path)
    for part in ("train", "test"):
        _check(arrays[f"x_{part}"], arrays[f"y_{part}"], part, path)
    images = {part: _scaled(arrays[f"x_{part}"]) for part in ("train", "test")}
    if images["train"].shape[1:] != images["test"].shape[1:]:
        raise ValueError(
            f"{path}: the images of `x_train` and `x_test` must have one shape. "
            f"Received: {images['train'].shape[1:]} and {images['test'].shape[1:]}"
        )
    labels, y_train = np.unique(arrays["y_train"], return_inverse=True)
    if len(labels) < 2:
        raise ValueError(f"{path}: `y_train` must hold at least two classes. Received: only {labels.tolist()}")
    unknown = np.setdiff1d(arrays["y_test"], labels)
    if unknown.size:
        raise ValueError(f"{path}: `y_test` holds labels that `y_train` does not. Received: {unknown[:5].tolist()}")
    y_test = np.searchsorted(labels, arrays["y_test"].ravel())
    return Data(
        path.stem, images["train"], y_train.ravel().astype("int64"), images["test"], y_test.astype("int64"), labels
    )


def _digits() -> Data:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the digits come with scikit-learn: pip install 'tfcompress[demo]', or name a file with --data"
        ) from error
    images, labels = load_digits(return_X_y=True)
    x, y = (images.reshape(-1, 8, 8, 1) / 16.0).astype("float32"), labels.astype("int64")
    order = np.random.default_rng(0).permutation(len(x))
    test, train = order[:450], order[450:]
    return Data("digits", x[train], y[train], x[test], y[test], np.arange(10))


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"`--data` must name an .npz file. There is none at {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            missing = [name for name in _ARRAYS if name not in file.files]
            if missing:
                raise ValueError(f"it holds no {', '.join(missing)} but {', '.join(file.files) or 'nothing'}")
            return {name: file[name] for name in _ARRAYS}
    except (ValueError, zipfile.BadZipFile, EOFError, OSError, AttributeError) as error:
        raise ValueError(f"{path} must be an .npz file with {', '.join(_ARRAYS)}: {error}") from error


def _check(x: np.ndarray, y: np.ndarray, part: str, path: Path) -> None:
    if x.ndim not in (3, 4):
        raise ValueError(
            f"{path}: `x_{part}` must be images [N, height, width] or [N, height, width, channels]. Received: {x.shape}"
        )
    if not len(x):
        raise ValueError(f"{path}: `x_{part}` is empty")
    if min(x.shape[1:3]) < _SMALLEST or (x.ndim == 4 and not x.shape[3]):
        raise ValueError(
            f"{path}: `x_{part}` must hold images of {_SMALLEST} x {_SMALLEST} or more. Received: {x.shape[1:]}"
        )
    if x.dtype.kind not in "uif":
        raise ValueError(f"{path}: `x_{part}` must hold numbers. Received: {x.dtype}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ValueError(f"{path}: `x_{part}` holds NaN or infinite values in {int((~np.isfinite(x)).sum())} places")
    if y.shape[1:] not in ((), (1,)) or not y.ndim or y.dtype.kind not in "ui":
        raise ValueError(f"{path}: `y_{part}` must be whole numbers [N]. Received: {y.dtype} of shape {y.shape}")
    if len(y) != len(x):
        raise ValueError(f"{path}: `x_{part}` and `y_{part}` must be of one length. Received: {len(x)} and {len(y)}")


def _scaled(x: np.ndarray) -> np.ndarray:
    x = x if x.ndim == 4 else x[..., None]
    return (x / np.iinfo(x.dtype).max if x.dtype.kind in "ui" else x).astype("float32")
