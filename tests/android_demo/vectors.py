"""Numbers that the app's Kotlin must compute, too: written by NumPy and TensorFlow, read by its tests on the JVM.

python -m tests.android_demo.vectors > android_demo/app/src/test/resources/vectors.json
"""

import json
import sys

import numpy as np
import tensorflow as tf


def pictures(random: np.random.Generator) -> list[dict]:
    """Photos made into inputs by `tf.image`: the middle, grey, resized with antialiasing, normalised."""
    found = []
    for width, height, to_height, to_width, channels, mean, std in (
        (40, 30, 8, 8, 3, [127.5], [127.5]),
        (7, 9, 9, 7, 3, [123.7, 116.3, 103.5], [58.4, 57.1, 57.4]),
        (33, 21, 28, 28, 1, [0.0], [255.0]),
        (5, 5, 12, 6, 1, [10.0], [3.0]),
    ):
        pixels = random.integers(0, 256, (height, width, 3))
        across = min(width, int(np.floor(height * to_width / to_height + 0.5)))
        down = min(height, int(np.floor(width * to_height / to_width + 0.5)))
        left, top = (width - across) // 2, (height - down) // 2
        image = tf.constant(pixels[top : top + down, left : left + across], tf.float32)
        image = tf.image.rgb_to_grayscale(image) if channels == 1 else image
        small = tf.image.resize(image, (to_height, to_width), method="bilinear", antialias=True).numpy()
        packed = (255 << 24) | (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
        found.append(
            {
                "width": width, "height": height, "pixels": (packed - (1 << 32)).ravel().tolist(),
                "to": [to_height, to_width, channels], "mean": mean, "std": std,
                "values": rounded((small - np.array(mean)) / np.array(std)),
            }
        )  # fmt: skip
    return found


def grids(random: np.random.Generator) -> list[dict]:
    """Real values on integer grids, halves to even, and back."""
    found = []
    for kind, scale, zero in (("int8", 0.007843138, -1), ("uint8", 0.03125, 128), ("int16", 3.0517578e-05, 0)):
        limits = np.iinfo(kind)
        real = (random.normal(size=40) * 0.7).astype(np.float32)
        halves = (np.float32(scale) * np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)).astype(np.float32)
        real = np.concatenate([real, halves, np.float32([1e9, -1e9, 0.0])])
        steps = np.round(real / np.float32(scale)).astype(np.float64) + zero
        integers = np.clip(steps, limits.min, limits.max).astype(kind)
        stored = integers.astype(np.dtype(kind).newbyteorder("<")).tobytes()
        back = ((integers.astype(np.int64) - zero) * np.float32(scale)).astype(np.float32)
        found.append(
            {
                "type": kind, "scale": scale, "zero_point": zero, "real": real.astype(float).tolist(),
                "integers": integers.tolist(), "bytes": list(stored),
                "back": back.astype(float).tolist(),
            }
        )  # fmt: skip
    return found


def statistics(random: np.random.Generator) -> list[dict]:
    """Percentiles of NumPy."""
    found = []
    for times in ([3.25], [1.0, 2.0, 3.0, 4.0, 10.0], random.lognormal(size=37).tolist(), [2.0] * 6, [0.0, 0.0]):
        low, median, high, p90, p99 = np.percentile(times, (25, 50, 75, 90, 99)).tolist()
        spread = (high - low) / median if median > 0 else None
        found.append({"times": times, "median": median, "p90": p90, "p99": p99, "min": min(times), "spread": spread})
    return found


def ratios(random: np.random.Generator) -> list[dict]:
    """Median over the turns of the ratio of medians."""
    found = []
    for turns, size in ((5, 7), (1, 3), (4, 2)):
        own, first = random.lognormal(size=(2, turns, size))
        ratio = float(np.median(np.median(own, axis=1) / np.median(first, axis=1)))
        found.append({"own": own.tolist(), "first": first.tolist(), "ratio": ratio})
    return found


def agreements(random: np.random.Generator) -> list[dict]:
    """Outputs beside expected ones: equal share, largest difference, same largest class of a row."""
    found = []
    for kind, change in (("float32", 0.0), ("float32", 3e-5), ("float32", 0.2), ("int8", 0), ("int8", 1), ("int8", 4)):
        if kind == "float32":
            expected = random.random((4, 10)).astype(kind)
            got = (expected + random.uniform(-change, change, expected.shape)).astype(kind)
        else:
            expected = random.integers(-100, 100, (4, 10)).astype(kind)
            got = (expected + random.integers(-change, change + 1, expected.shape)).astype(kind)
        apart = np.abs(expected.astype(np.float64) - got.astype(np.float64))
        signal = np.sum((expected.astype(np.float64) - (3 if kind == "int8" else 0)) ** 2)  # 3 is the grid's zero
        noise = float(np.sum(apart**2))
        found.append(
            {
                "type": kind, "expected": expected.astype(float).tolist(), "got": got.astype(float).tolist(),
                "equal": float(np.mean(apart == 0)), "largest": float(apart.max()),
                "same_top": float(np.mean(expected.argmax(1) == got.argmax(1))),
                "decibels": 10 * float(np.log10(signal / noise)) if noise else None,
                "agrees": bool(apart.max() <= (1e-4 if kind == "float32" else 1)),
            }
        )  # fmt: skip
    return found


def tops(random: np.random.Generator) -> list[dict]:
    """The three largest of a softmax, of logits, and of one probability."""
    logits = random.normal(size=(3, 10)) * 3
    soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = []
    for values, shares in [*((row, True) for row in soft), *((row, False) for row in logits), (np.array([0.25]), True)]:
        order = np.argsort(-values, kind="stable")[:3]
        found.append({"values": values.tolist(), "order": order.tolist(), "probabilities": shares})
    return found


def rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values.ravel()]


def vectors() -> dict:
    random = np.random.default_rng(9)
    parts = (pictures, grids, statistics, ratios, agreements, tops)
    return {part.__name__: part(random) for part in parts}


def text() -> str:
    parts = {name: "[\n  " + ",\n  ".join(map(json.dumps, rows)) + "\n ]" for name, rows in vectors().items()}
    return "{\n" + ",\n".join(f' "{name}": {rows}' for name, rows in parts.items()) + "\n}\n"


if __name__ == "__main__":
    sys.stdout.write(text())
