"""Spoken digits (FSDD at 8 kHz) as logarithmic mel spectrograms, read from the file that --speech names."""

import argparse
from pathlib import Path

import numpy as np
import tensorflow as tf

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "fsdd_8khz.npz"
FRAME, STEP, BANDS = 256, 128, 32


def add_speech(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--speech", type=Path, default=SHARED, metavar="FILE.npz", help="spoken digits: audio, label, is_test"
    )


def load(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Spectrograms [N, 61, 32, 1] float32 and labels: 2 700 to train in random order, 300 to test."""
    if not path.is_file():
        raise SystemExit(f"needs spoken digits as an .npz file; there is none at {path}: name it with --speech")
    with np.load(path) as file:
        audio, label, is_test = file["audio"], file["label"], file["is_test"].astype(bool)
    x, y = spectrograms(audio), label.astype("int64")
    order = np.random.default_rng(0).permutation(np.flatnonzero(~is_test))
    return x[order], y[order], x[is_test], y[is_test]


def spectrograms(audio: np.ndarray) -> np.ndarray:
    """log mel power of each clip, with mean 0 and variance 1: speakers differ sixteenfold in loudness."""
    waves = tf.constant(audio.astype("float32") / 32768.0)
    power = tf.abs(tf.signal.stft(waves, FRAME, STEP)) ** 2
    mel = tf.signal.linear_to_mel_weight_matrix(BANDS, power.shape[-1], 8_000, 40.0, 3_900.0)
    found = np.log(np.asarray(power @ mel) + 1e-6)
    found -= found.mean((1, 2), keepdims=True)
    return (found / (found.std((1, 2), keepdims=True) + 1e-6))[..., None].astype("float32")
