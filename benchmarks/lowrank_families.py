"""Which families take low rank: 0.7 of the multiply-accumulates, run, full INT8 file, run.

Each row runs in a process of its own, so that a crash is a row: `python benchmarks/lowrank_families.py [--only NAME]`.
Weights are random: the table says what can be written and exported, not how accurate it is.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flavors import add_flavor, chosen, environment
from rich.console import Console
from rich.table import Table
from rows import row

SCRIPT = "lowrank_row.py"


def passed(result: dict[str, Any], budget: float) -> bool:
    stages = result["stages"]
    return bool(stages.get("run") and stages.get("int8") and stages.get("macs", 1.0) <= budget)


def show(flavor: str, results: list[dict[str, Any]], budget: float) -> None:
    table = Table(title=f"low rank, {flavor}, {budget} of the MACs")
    headings = ("model", "MACs", "parameters", "factorized", "does not pay", "run", "INT8", "s")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for result in results:
        stages = result["stages"]
        marks = ["yes" if stages.get(key) else "no" for key in ("correlation", "int8")]
        numbers = [f"{stages[key]:.1%}" if key in stages else "-" for key in ("macs", "params")]
        counts = [str(stages.get(key, "-")) for key in ("factorized", "kept")]
        table.add_row(result["name"], *numbers, *counts, *marks, f"{stages.get('seconds', 0):.0f}")
    console = Console(width=110)
    console.print(table)
    for result in results:
        if result["reason"]:
            console.print(f"{result['name']}: {result['reason']}", markup=False, highlight=False, soft_wrap=True)
    here = [r for r in results if r["reason"] != "not in this flavor"]
    failed = [r["name"] for r in here if not passed(r, budget)]
    unpaid = [r["name"] for r in here if "cannot be held" in r["reason"]]
    print(
        f"bar 3, {flavor}: {len(here) - len(failed)} of {len(here)} families at {budget} of the MACs (failed: "
        f"{', '.join(failed) or 'none'}; of these the budget cannot be held: {', '.join(unpaid) or 'none'})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flavor(parser)
    parser.add_argument("--only", action="append", metavar="NAME", help="this row; may be given several times")
    parser.add_argument("--macs", type=float, default=0.7, help="budget (%(default)s)")
    parser.add_argument("--timeout", type=float, default=1200, help="seconds of one row (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="rows side by side (%(default)s)")
    options = parser.parse_args()
    listing = [sys.executable, "-c", "import architectures as a; print(*a.FAMILIES)"]
    said = subprocess.run(listing, cwd=Path(__file__).parent, env=environment("keras3"), capture_output=True, text=True,
                          check=True).stdout  # fmt: skip
    names = options.only or said.strip().splitlines()[-1].split()
    with ThreadPoolExecutor(options.jobs) as pool:
        for flavor in chosen(options.flavor):
            rows = [pool.submit(row, SCRIPT, name, flavor, options.timeout, "--macs", str(options.macs))
                    for name in names]  # fmt: skip
            results = []
            for future in rows:
                results.append(future.result())
                verdict = "yes" if passed(results[-1], options.macs) else results[-1]["reason"][:150] or "no"
                print(f"{flavor} {results[-1]['name']}: {verdict}", file=sys.stderr, flush=True)
            show(flavor, results, options.macs)


if __name__ == "__main__":
    main()
