"""Composite models the whole way: quantize, train, save, load, train on, INT8; and is attention alive in the file?

Each row runs in a process of its own, the plain TFLite converter's beside it (the float model, asked for integers only,
on the same calibration data): `python benchmarks/composites.py [--flavor ...] [--only NAME]`.
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

STAGES = ("quantize", "train", "save", "int8", "run")
CORRELATION, FOLLOWS = 0.995, 0.95


def failures(result: dict[str, Any], plain: bool = False) -> list[str]:
    """What keeps a row from the bar."""
    stages = result["stages"]
    found = [] if plain else [stage for stage in STAGES if not stages.get(stage)]
    if "correlation" not in stages:
        return [*found, "no file"]
    if stages["float operations"]:
        found.append("float operations")
    if not stages["correlation"] >= CORRELATION:
        found.append("correlation")
    if stages["softmaxes"][0] != stages["softmaxes"][1]:
        found.append("softmaxes lost")
    if any(2 * ours < true for ours, true in stages["distinct"]):
        found.append("distinct values")
    if any(not follows >= FOLLOWS for follows in stages["follows"]):
        found.append("softmax")
    return found


def cells(result: dict[str, Any], plain: bool) -> list[str]:
    stages = result["stages"]
    if "correlation" not in stages:
        return ["-"] * 5 + [", ".join(failures(result, plain))]
    worst = min(stages["distinct"], key=lambda pair: pair[0] / pair[1], default=None)
    return [
        str(len(stages["float operations"])),
        f"{stages['correlation']:.4f}",
        "{} of {}".format(*worst) if worst else "none",
        f"{min(stages['follows']):.3f}" if stages["follows"] else "none",
        "{:.3f} {:.3f}".format(*stages["accuracy"]),
        ", ".join(failures(result, plain)) or "met",
    ]


def show(flavor: str, results: list[tuple[dict[str, Any], dict[str, Any] | None]]) -> None:
    table = Table(title=f"composites in INT8, {flavor}")
    heads = (
        "model",
        "by",
        "float ops",
        "correlation",
        "softmax in",
        "softmax out",
        "accuracy: Keras, file",
        "bar",
        "s",
    )
    for head in heads:
        table.add_column(head, justify="left" if head in ("model", "by", "bar") else "right", no_wrap=head != "bar")
    for ours, plain in results:
        if ours["reason"] == "not in this flavor":
            continue
        table.add_row(ours["name"], "tfcompress", *cells(ours, False), f"{ours['total']:.0f}")
        if plain is not None:
            table.add_row("", "converter", *cells(plain, True), f"{plain['total']:.0f}", end_section=True)
    console = Console(width=140)
    console.print(table)
    say = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)  # noqa: E731
    for ours, plain in results:
        for who, result in (("", ours), (" (converter)", plain)):
            if result and result["reason"]:
                say(f"{ours['name']}{who}: {result['reason']}")
        for layer, reason in ours["stages"].get("opaque", {}).items():
            say(f"{ours['name']}: {layer} stays closed: {reason}")
    here = [ours for ours, _ in results if ours["reason"] != "not in this flavor"]
    theirs = [plain for _, plain in results if plain is not None and plain["reason"] != "not in this flavor"]
    say(
        f"bar 1, {flavor}: {sum(not failures(r) for r in here)} of {len(here)} composites meet it; "
        f"of the converter's files {sum(not failures(r, True) for r in theirs)} of {len(theirs)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flavor(parser)
    parser.add_argument("--only", action="append", metavar="NAME", help="this row; may be given several times")
    parser.add_argument("--steps", type=int, nargs=2, default=(600, 100), help="in float, quantized (%(default)s)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds of one row (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="rows side by side (%(default)s)")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain converter out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results there, too")
    options = parser.parse_args()
    listing = [sys.executable, "-c", "import composite_models as m; print(*m.OWN, *m.HUB, sep='\\n')"]
    where, own = Path(__file__).parent, environment("keras3")
    said = subprocess.run(listing, cwd=where, env=own, capture_output=True, text=True, check=True).stdout
    names = options.only or said.strip().splitlines()
    unknown = set(names) - set(said.strip().splitlines())
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}. There are: {', '.join(said.strip().splitlines())}")
    everything: dict[str, list[tuple[dict[str, Any], dict[str, Any] | None]]] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        for flavor in chosen(options.flavor):
            pairs = []
            for name in names:
                asked = (row, "composites_row.py", name, flavor, options.timeout, "--steps", *map(str, options.steps))
                plain = None if options.no_plain else pool.submit(*asked, "--plain")
                pairs.append((pool.submit(*asked), plain))
            results = everything[flavor] = []
            for mine, theirs in pairs:
                results.append((mine.result(), theirs.result() if theirs else None))
                done = results[-1][0]
                verdict = done["reason"] or ", ".join(failures(done)) or "met"
                print(f"{flavor} {done['name']}: {verdict[:150]} ({done['total']:.0f} s)", file=sys.stderr, flush=True)
                if options.json:  # row by row: a run that is stopped leaves what it has seen
                    options.json.write_text(json.dumps(everything, indent=1))
            show(flavor, results)


if __name__ == "__main__":
    main()
