"""The harness beside LiteRT's own benchmark, and tflite-micro's arena beside a search: bars printed with pass or fail.

    python benchmarks/harness.py [--files FOLDER] [--repeats 7] [--only host|tflm]

Host: three files above 1 ms, timed by turns by `benchmark` and by LiteRT's `litert-benchmark`, each in processes of
their own; the ratio of their medians is taken turn by turn, and the median of the ratios must be within 10 %. The
harness's overhead per inference is the median of a timed call that does nothing.

tflm: three INT8 networks; the arena that `benchmark` tells must be within 64 bytes of the least one with which a bare
interpreter runs, and the outputs bit-equal to LiteRT's reference kernels up to the rounding of FULLY_CONNECTED.

Files come from FOLDER (`*.tflite`); without it networks are built and exported, which imports TensorFlow.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import tflite_export
from tflite_export.bench.inputs import feeds
from tflite_export.rendering import render, table

ABOVE, NEAR, BYTES = 1.0, 0.10, 64
BARE = """
import sys
import numpy as np
from tflite_micro import runtime
interpreter = runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2]))
details = interpreter.get_input_details(0)
interpreter.set_input(np.zeros(details["shape"], details["dtype"]), 0)
interpreter.invoke()
"""


def networks() -> dict[str, tuple[bytes, bytes]]:
    """Name -> (float file, INT8 file) of three small networks with random weights."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tfcompress as tfc
    from tfcompress.core.flavor import keras

    def convolutions(side: int, width: int) -> "keras.Model":
        x = image = keras.Input((side, side, 3))
        for channels, stride in ((width, 2), (2 * width, 1), (2 * width, 2), (4 * width, 1)):
            x = keras.layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False)(x)
            x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
        return keras.Model(image, keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(x)))

    def separable(side: int, width: int) -> "keras.Model":
        x = image = keras.Input((side, side, 3))
        x = keras.layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(x)
        for channels in (2 * width, 4 * width, 4 * width):
            x = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
            x = keras.layers.Conv2D(channels, 1, activation="relu")(x)
        return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))

    def residual(side: int, width: int) -> "keras.Model":
        x = image = keras.Input((side, side, 3))
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        for _ in range(3):
            y = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(x)
            x = keras.layers.Add()([x, keras.layers.Conv2D(width, 3, padding="same")(y)])
        x = keras.layers.MaxPooling2D(4)(x)
        return keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))

    found = {}
    for name, build, large, small in (
        ("convolutions", convolutions, (128, 24), (24, 8)),
        ("separable", separable, (192, 24), (24, 8)),
        ("residual", residual, (48, 24), (16, 8)),
    ):
        keras.utils.set_random_seed(0)
        rows = np.random.default_rng(0).random((32, small[0], small[0], 3), np.float32)
        integer = tfc.calibrate(tfc.quantize_model(build(*small)), rows)
        found[name] = (
            tflite_export.export(build(*large), "float32").content,
            tflite_export.export(integer, "int8", inputs="int8", outputs="int8").content,
        )
    return found


def litert_median(path: Path, runs: int) -> float:
    """Median milliseconds by LiteRT's own tool, on one thread of XNNPACK."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        tool = Path(sys.executable).with_name("litert-benchmark")
        arguments = [f"--model={path}", "--use_cpu", f"--num_runs={runs}", "--num_threads=1", f"--result_json={out}"]
        subprocess.run([tool, *arguments], check=True, capture_output=True)
        return float(json.loads(out.read_text())["latency"]["median_ms"])


def host(files: dict[str, bytes], repeats: int, runs: int) -> bool:
    """Bar: medians within 10 % of LiteRT's."""
    rows, passed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder) / "model.tflite"
            path.write_bytes(content)
            # One inference of inputs: the check of the outputs, which is slow, has nothing more to do.
            row = feeds(content, times=1).arrays
            ratios: dict[str, list[float]] = {"compiled-cpu": [], "xnnpack": []}
            own, theirs, overhead = [], [], 0.0
            for _ in range(repeats):
                litert = [litert_median(path, runs)]
                for accelerator, found in ratios.items():
                    result = tflite_export.benchmark(path, runs=runs, accelerator=accelerator, samples=row)
                    litert.append(litert_median(path, runs))
                    found.append(result.median / np.mean(litert[-2:]))
                    overhead = result.counts["overhead (us)"]
                    own += [result.median] if accelerator == "compiled-cpu" else []
                theirs += litert
            ratio, other = (float(np.median(ratios[kind])) for kind in ("compiled-cpu", "xnnpack"))
            passed.append(abs(ratio - 1) <= NEAR and np.median(theirs) > ABOVE)
            cells = (f"{np.median(own):.3f}", f"{np.median(theirs):.3f}", f"{ratio:.3f}", f"{other:.3f}")
            rows.append((name, *cells, f"{overhead:.3f}", "pass" if passed[-1] else "FAIL"))
    heads = ("file", "ours ms", "litert-benchmark ms", "ratio", "interpreter's ratio", "overhead us", "")
    print(render(table("Medians of one inference, one thread", heads, rows, right=heads[1:-1])))
    return all(passed) and len(passed) >= 3


def least_arena(path: Path) -> int:
    """The fewest bytes, to 8, with which a bare interpreter runs; found by halving."""

    def runs(size: int) -> bool:
        return not subprocess.run([sys.executable, "-c", BARE, path, str(size)], capture_output=True).returncode

    fails, works = 0, 1 << 14
    while not runs(works):
        fails, works = works, 2 * works
    while works - fails > 8:
        middle = (fails + works) // 2
        fails, works = (fails, middle) if runs(middle) else (middle, works)
    return works


def micro(files: dict[str, bytes]) -> bool:
    """Bar: the arena is the least one, outputs are those of the reference kernels."""
    rows, passed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder) / "model.tflite"
            path.write_bytes(content)
            result = tflite_export.benchmark(path, "tflm", name=name)
            if result.status != "ok":
                rows.append((name, "", "", "", "", f"FAIL: {result.reason}"))
                passed.append(False)
                continue
            least, total, agreement = least_arena(path), result.arena["total"], result.agreement
            rounded = any("rounds twice" in warning for warning in result.warnings)
            same = agreement.equal == 1 or (rounded and agreement.largest <= 1)
            passed.append(abs(total - least) <= BYTES and same)
            verdict = "pass" if passed[-1] else "FAIL"
            note = " (FULLY_CONNECTED rounds twice)" if agreement.equal < 1 and rounded else ""
            equal = f"{100 * agreement.equal:.2f} % of {agreement.values:,}"
            rows.append((name, f"{total:,}", f"{least:,}", equal, f"{agreement.largest:.0f}", verdict + note))
    heads = ("file", "arena", "by halving", "equal to reference", "largest step", "")
    print(render(table("tflite-micro", heads, rows, right=heads[1:-1])))
    return all(passed) and len(passed) >= 3


def main() -> None:
    """Prints both tables; exit status 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, help="folder of .tflite files instead of networks of our own")
    parser.add_argument("--repeats", type=int, default=7, help="turns of the host's comparison; 7")
    parser.add_argument("--runs", type=int, default=40, help="inferences of each turn; 40")
    parser.add_argument("--only", choices=("host", "tflm"))
    arguments = parser.parse_args()
    if arguments.files is not None:
        large = small = {path.name: path.read_bytes() for path in sorted(arguments.files.glob("*.tflite"))}
    else:
        made = networks()
        large, small = ({name: pair[at] for name, pair in made.items()} for at in (0, 1))
    passed = True
    if arguments.only != "tflm":
        passed &= host(large, arguments.repeats, arguments.runs)
    if arguments.only != "host":
        passed &= micro(small)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
