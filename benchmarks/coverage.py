"""Which models go the whole way: quantize, a training step, finalize, full INT8 file, run; tfmot beside.

Each row runs in a process of its own, so that a crash is a row: `python benchmarks/coverage.py [--only NAME]`.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flavors import add_flavor, chosen, environment
from rich.console import Console
from rich.table import Table
from rows import row

FAMILIES_AND_TOPOLOGIES = 28
SCRIPT = "coverage_row.py"
STAGES = ("quantize", "step", "finalize", "int8", "run")


def passed(result: dict[str, Any]) -> bool:
    return all(result["stages"].get(stage) for stage in STAGES)


def exact(result: dict[str, Any], bits: int) -> tuple[int, int]:
    found, total, _ = result["stages"].get(f"{bits} bits", (0, 0, []))
    return found, total


def show(flavor: str, results: list[dict[str, Any]], tfmot: dict[str, dict[str, Any]]) -> None:
    table = Table(title=f"coverage, {flavor}")
    for heading in ("model", *STAGES, "dB", "8 bits", "4 bits", "tfmot", "s"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for result in results:
        absent = result["reason"] == "not in this flavor"
        marks = ["-" if absent else "yes" if result["stages"].get(stage) else "no" for stage in STAGES]
        counts = ["{}/{}".format(*exact(result, bits)) for bits in (8, 4)]
        peer = tfmot.get(result["name"])
        theirs = "" if peer is None else "yes" if peer["stages"].get("int8") else "no"
        table.add_row(
            result["name"], *marks, str(result["stages"].get("dB", "")), *counts, theirs, f"{result['total']:.0f}"
        )
    console = Console(width=120)
    console.print(table)
    for result in results:
        if result["reason"]:
            console.print(f"{result['name']}: {result['reason']}", markup=False, highlight=False, soft_wrap=True)
        for bits in (8, 4):
            if result["stages"].get(f"{bits} bits", (0, 0, []))[2]:
                others = ", ".join(result["stages"][f"{bits} bits"][2])
                console.print(f"{result['name']}: not on the {bits}-bit grid: {others}", markup=False, soft_wrap=True)


def bars(flavor: str, results: list[dict[str, Any]], listed: Iterable[str], tfmot: dict[str, dict[str, Any]]) -> None:
    listed = list(listed)
    here = [r for r in results if r["name"] in listed and r["reason"] != "not in this flavor"]
    absent = [r["name"] for r in results if r["reason"] == "not in this flavor"]
    beyond = [r for r in results if r["name"] not in listed]
    print(
        f"bar 1, {flavor}: {sum(map(passed, here))} of {len(here)} models go the whole way "
        f"({FAMILIES_AND_TOPOLOGIES} asked for, not in this flavor: {', '.join(absent) or 'none'}); "
        f"of those beyond: {sum(map(passed, beyond))} of {len(beyond)}"
        + (f"; tfmot: {sum(bool(tfmot[n]['stages'].get('int8')) for n in listed if n in tfmot)}" if tfmot else "")
    )
    for bits in (8, 4):
        pairs = [exact(result, bits) for result in results]
        found, total = sum(p[0] for p in pairs), sum(p[1] for p in pairs)
        share = found / total if total else 0.0
        print(f"bar 2, {flavor}: {found} of {total} kernels hold the model's own {bits}-bit integers ({share:.2%})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flavor(parser)
    parser.add_argument("--only", action="append", metavar="NAME", help="this row; may be given several times")
    parser.add_argument("--timeout", type=float, default=900, help="seconds of one row (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="rows side by side (%(default)s)")
    parser.add_argument("--no-tfmot", action="store_true", help="leave tfmot out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there, too")
    options = parser.parse_args()
    listing = [sys.executable, "-c", "import architectures as a; print(*a.FAMILIES, *a.TOPOLOGIES); print(*a.BEYOND)"]
    where = Path(__file__).parent
    said = subprocess.run(
        listing, cwd=where, env=environment("keras3"), capture_output=True, text=True, check=True
    ).stdout
    listed, beyond = (line.split() for line in said.strip().splitlines()[-2:])
    names = options.only or [*listed, *beyond]
    unknown = set(names) - {*listed, *beyond}
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}. There are: {', '.join([*listed, *beyond])}")
    everything = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        for flavor in chosen(options.flavor):
            peers = names if flavor == "tf_keras" and not options.no_tfmot else []
            ours = [pool.submit(row, SCRIPT, name, flavor, options.timeout) for name in names]
            theirs = {name: pool.submit(row, SCRIPT, name, flavor, options.timeout, "--tfmot") for name in peers}
            results = []
            for future in ours:
                results.append(future.result())
                done = results[-1]
                verdict = "yes" if passed(done) else done["reason"][:150]
                print(f"{flavor} {done['name']}: {verdict} ({done['total']:.0f} s)", file=sys.stderr, flush=True)
            tfmot = {name: future.result() for name, future in theirs.items()}
            show(flavor, results, tfmot)
            bars(flavor, results, listed, tfmot)
            everything[flavor] = {"ours": results, "tfmot": tfmot}
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
