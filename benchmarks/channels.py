"""Which models lose channels for real: equal to the original with those channels at zero, costs as predicted, INT8.

Each row runs in a process of its own, so that a crash is a row: `python benchmarks/channels.py [--only NAME]`.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flavors import add_flavor, chosen, environment
from rich.console import Console
from rich.table import Table
from rows import row

SCRIPT = "channels_row.py"
RATIOS = ("0.3", "0.5")
ALLOWED = 1e-4  # relative error


def passed(stage: dict[str, Any], int8: bool) -> bool:
    exact = stage.get("error", 1.0) <= ALLOWED
    falls = stage.get("params", 1.0) < 1 and stage.get("macs", 1.0) < 1
    whole = stage.get("as predicted") and stage.get("shapes")
    return bool(exact and falls and whole and (not int8 or stage.get("int8")))


def show(flavor: str, results: list[dict[str, Any]]) -> None:
    table = Table(title=f"channels, {flavor}")
    for heading in ("model", "ratio", "error", "parameters", "MACs", "as predicted", "INT8", "s"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for result in results:
        for ratio in RATIOS:
            stage = result["stages"].get(ratio, {})
            if "error" not in stage:
                table.add_row(result["name"], ratio, *["-"] * 6)
                continue
            marks = ["yes" if stage.get(key) else "-" if key not in stage else "no" for key in ("as predicted", "int8")]
            table.add_row(result["name"], ratio, f"{stage['error']:.0e}", f"{stage['params']:.1%}",
                          f"{stage['macs']:.1%}", *marks, f"{stage['seconds']:.0f}")  # fmt: skip
    console = Console(width=110)
    console.print(table)
    for result in results:
        if result["reason"]:
            console.print(f"{result['name']}: {result['reason']}", markup=False, highlight=False, soft_wrap=True)


def bar(flavor: str, results: list[dict[str, Any]], int8: bool) -> None:
    absent = [r["name"] for r in results if r["reason"] == "not in this flavor"]
    here = [r for r in results if r["name"] not in absent]
    counts = [sum(passed(r["stages"].get(ratio, {}), int8) for r in here) for ratio in RATIOS]
    failed = [r["name"] for r in here if not all(passed(r["stages"].get(ratio, {}), int8) for ratio in RATIOS)]
    print(
        f"bar 1, {flavor}: {counts[0]} of {len(here)} models at 30 %, {counts[1]} at 50 % (not in this flavor: "
        f"{', '.join(absent) or 'none'}; failed: {', '.join(failed) or 'none'})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flavor(parser)
    parser.add_argument("--only", action="append", metavar="NAME", help="this row; may be given several times")
    parser.add_argument("--timeout", type=float, default=1800, help="seconds of one row (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="rows side by side (%(default)s)")
    parser.add_argument("--no-int8", action="store_true", help="leave quantization and the file out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there, too")
    options = parser.parse_args()
    listing = [sys.executable, "-c", "import architectures as a; print(*a.FAMILIES, *a.TOPOLOGIES); print(*a.BEYOND)"]
    said = subprocess.run(listing, cwd=Path(__file__).parent, env=environment("keras3"), capture_output=True, text=True,
                          check=True).stdout  # fmt: skip
    names = options.only or said.strip().splitlines()[-2].split()
    flags = ["--no-int8"] if options.no_int8 else []
    everything = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        for flavor in chosen(options.flavor):
            futures = [pool.submit(row, SCRIPT, name, flavor, options.timeout, *flags) for name in names]
            results = []
            for future in futures:
                results.append(future.result())
                done = results[-1]
                print(f"{flavor} {done['name']}: {json.dumps(done['stages'])} {done['reason'][:300]}", file=sys.stderr,
                      flush=True)  # fmt: skip
                everything[flavor] = results
                if options.json:
                    options.json.write_text(json.dumps(everything, indent=1))
            show(flavor, results)
            bar(flavor, results, not options.no_int8)


if __name__ == "__main__":
    main()
