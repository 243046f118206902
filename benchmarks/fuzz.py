"""Ten thousand damaged files through inspect and audit: nothing but a ValueError, 2 s and 1 GiB at most.

Each file comes from its seed alone. A child process works on a stretch of seeds under a limit of address space, each
step under a timer of its own; what the limit or the timer ends is named with its seed, and the next child goes on
behind it. `--seed N` does one seed in this process, for a look at its traceback.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mutations import Base, mutated

SECONDS, BYTES = 2.0, 1 << 30
TARGETS = ("xnnpack", "gpu", "nnapi", "tflm", "ethos-u", "coreml", "web", "edgetpu")


def bases(folder: Path) -> list[Base]:
    found = [Base.of(path.name, path.read_bytes()) for path in sorted(folder.glob("*.tflite"))]
    return found or sys.exit(f"no .tflite file in {folder}")


def steps(content: bytes, seed: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is done to one file; the tables of one target only, since all of them are written by the same lines."""
    from tflite_export.auditing.verdict import audit
    from tflite_export.description import describe

    yield "inspect", lambda: inspect(describe(content))
    for target in TARGETS:
        yield f"audit {target}", lambda target=target: audit(content, target, tools=False).to_json()
    target = TARGETS[seed % len(TARGETS)]
    yield f"table {target}", lambda: str(audit(content, target, tools=False))


def inspect(description: Any) -> None:
    description.text(tensors=True)  # all that str() prints, and the tensors
    json.dumps(description.rows())


def one(seed: int, files: list[Base]) -> dict[str, Any]:
    """All steps on one seed. The timer ends the process by its signal: nothing in it can hold it off."""
    what, content = mutated(seed, files)
    slowest, refused = (0.0, ""), False
    for name, step in steps(content, seed):
        print(json.dumps({"seed": seed, "begins": name, "what": what}), flush=True)
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            step()
        except ValueError:
            refused = True
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, (time.process_time() - start, name))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seed": seed, "what": what, "refused": refused, "slowest": slowest, "peak": peak}


def work(first: int, last: int, folder: Path) -> None:
    """The child's side."""
    import tflite_export.auditing.verdict
    import tflite_export.description
    import tflite_export.rendering  # noqa: F401

    files = bases(folder)
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    for seed in range(first, last):
        print(json.dumps(one(seed, files)), flush=True)


def stretch(first: int, last: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Results of the seeds; one that ends its child is a result with "failed", and a new child goes on behind it."""
    while first < last:
        command = [sys.executable, __file__, "--work", str(first), str(last), "--data", str(folder)]
        child = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        begun: dict[str, Any] = {}
        for line in child.stdout.splitlines():
            row = json.loads(line)
            if "begins" in row:
                begun = row
            else:
                yield row
                first, begun = row["seed"] + 1, {}
        if first < last:
            words = child.stderr.strip().splitlines()[-1:] or [f"ended by {signal.Signals(-child.returncode).name}"]
            yield {**begun, "seed": begun.get("seed", first), "failed": words[0]}
            first = begun.get("seed", first) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shared = Path(__file__).resolve().parents[2] / "shared" / "data" / "tflite"
    parser.add_argument("--data", type=Path, default=shared, help="folder of whole .tflite files (%(default)s)")
    parser.add_argument("--files", type=int, default=10_000, help="damaged files (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (%(default)s)")
    parser.add_argument("--seed", type=int, help="this seed alone, in this process")
    parser.add_argument("--work", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(*options.work, options.data)
    if options.seed is not None:
        return print(one(options.seed, bases(options.data)))
    print(f"seeds {options.first} to {options.first + options.files - 1}", flush=True)
    last = options.first + options.files
    stretches = [(begin, min(begin + 250, last)) for begin in range(options.first, last, 250)]
    ways, refused, failed, peak, done = Counter[str](), 0, [], 0, 0
    slow: list[tuple[float, str, int]] = []
    start = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        for rows in pool.map(lambda edges: list(stretch(*edges, options.data)), stretches):
            done += len(rows)
            for row in rows:
                if "failed" in row:
                    failed.append(row)
                    where = f"seed {row['seed']} ({row.get('what')}, {row.get('begins')})"
                    print(f"FAILED {where}: {row['failed']}", flush=True)
                    continue
                ways[row["what"].split()[0]] += 1
                refused += row["refused"]
                peak = max(peak, row["peak"])
                slow = sorted([*slow, (*row["slowest"], row["seed"])], reverse=True)[:3]
            print(f"  {done:,} files, {len(failed)} failed, {time.monotonic() - start:.0f} s", flush=True)
    print(f"{dict(ways)}; refused with a ValueError: {refused:,}, read: {sum(ways.values()) - refused:,}")
    print("slowest: " + ", ".join(f"{seconds:.2f} s ({name}, seed {seed})" for seconds, name, seed in slow))
    print(f"peak of resident memory: {peak / 2**20:.0f} MiB; limit of address space: {BYTES >> 20:,} MiB")
    print(f"bar 2: of {options.files:,} files {len(failed)} crashed, took over {SECONDS:g} s or over 1 GiB")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
