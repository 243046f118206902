"""Files on every runtime that this machine can only emulate or compile for: too heavy for each run of the tests.

    python benchmarks/emulated.py [FILE...] [--tflm CHECKOUT] [--only TARGET] [--runs 20] [--prepare] [--out FILE.jsonl]

web (LiteRT.js and tfjs-tflite under Node and in headless Chromium), ethos-u (Vela; estimates for a U55, U65 and U85),
arm64 (LiteRT's aarch64 kernels under QEMU, on a Cortex-A76 and an A53) and, with a checkout of tflite-micro, cortex-m
(M3, M4, M7 and M55; the first build of each takes minutes). Each target must run at least one file, every other file
must be a row with its reason, and outputs that were compared must be the file's.

`tests/packages.sh` installs what is needed; `--prepare` makes the ARM64 root, 180 MB. Without FILE: the small ones of
`../shared/data/tflite` beside the checkout.
"""

import argparse
import sys
import time
from pathlib import Path

import tflite_export
from tflite_export.bench.arm64 import root_folder
from tflite_export.bench.arm64_root import prepare
from tflite_export.bench.result import Result, lines

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "tflite"
SMALL = (
    "aeq_conv_fc_mnist_srq_a8w8", "coral_mobilenet_v1_0.25_128_quant", "mediapipe_face_detection_short_range_fp16",
    "support_dilated_conv", "tflm_hello_world_int8", "tflm_micro_speech_quantized",
    "coral_invalid_model_invoking_error",
)  # fmt: skip
# Target, accelerator, further options.
PASSES: tuple[tuple[str, str, dict], ...] = (
    ("web", "litert.js", {}),
    ("web", "tfjs-tflite", {}),
    ("web", "chromium", {}),
    ("web", "chromium", {"runtime": "tfjs-tflite"}),
    ("ethos-u", "u55-128", {}),
    ("ethos-u", "u65-256", {}),
    ("ethos-u", "u85-256", {}),
    ("arm64", "cortex-a76", {}),
    ("arm64", "cortex-a53", {}),
    ("cortex-m", "cortex-m4", {}),
    ("cortex-m", "cortex-m3", {"kernels": "reference"}),
    ("cortex-m", "cortex-m7", {}),
    ("cortex-m", "cortex-m55", {}),
)


def verdict(results: list[Result]) -> str:
    """ "" when a pass did what it must."""
    if any(result.status == "unavailable" for result in results):
        return "unavailable: " + results[0].reason
    wrong = [result.name for result in results if result.status == "failed" and "not the file's" in result.reason]
    silent = [result.name for result in results if result.status == "failed" and not result.reason]
    if not any(result.status == "ok" for result in results):
        return "no file runs"
    if wrong or silent:
        return f"wrong outputs: {wrong}" if wrong else f"no reason: {silent}"
    return ""


def shown(result: Result) -> str:
    """What a table of times does not show: counts, agreement."""
    parts = [f"{name} {value:,.0f}" for name, value in result.counts.items() if name in ("cycles", "instructions")]
    parts += [f"arena {result.arena['total']:,}"] if "total" in result.arena else []
    if result.agreement is not None:
        found = result.agreement
        parts.append(f"{100 * found.equal:.2f} % equal, largest {found.largest:g} {found.unit}")
    if "equal_to_this_machine" in result.counts:
        parts.append(f"{100 * result.counts['equal_to_this_machine']:.2f} % equal to this machine's kernels")
    return ", ".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--tflm", type=Path, help="a checkout of tflite-micro, for cortex-m")
    parser.add_argument("--only", action="append", help="web, ethos-u, arm64, cortex-m or an accelerator; repeatable")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--prepare", action="store_true", help="make the ARM64 root where it is missing")
    parser.add_argument("--out", type=Path, help="results as JSON lines")
    arguments = parser.parse_args()
    files = arguments.files or [SHARED / f"{name}.tflite" for name in SMALL]
    if arguments.prepare:
        prepare(root_folder({}), progress=print)
    found: list[Result] = []
    failed = False
    for target, accelerator, options in PASSES:
        if arguments.only and not {target, accelerator} & set(arguments.only):
            continue
        if target == "cortex-m" and arguments.tflm is None:
            continue
        options = {**options, **({"tflm": str(arguments.tflm)} if target == "cortex-m" else {})}
        begin = time.monotonic()
        given = {path.stem: path for path in files}
        results = tflite_export.benchmark(given, target, accelerator=accelerator, runs=arguments.runs, **options)
        reason = verdict(results)
        words = [f"{name}={value}" for name, value in options.items() if name != "tflm"]
        title = " ".join([target, accelerator, *words])
        print(f"\n== {title} ({time.monotonic() - begin:.0f} s)")
        print(tflite_export.table(results))
        for result in results:
            if text := shown(result):
                print(f"   {result.name}: {text}")
        print(f"FAIL: {title}: {reason}" if reason else f"pass: {title}")
        failed |= bool(reason)
        found += results
        if arguments.out:
            arguments.out.write_text(lines(found), encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
