"""Commands about time and memory: benchmark, report, doctor."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tflite_export.cli.command import Command

if TYPE_CHECKING:
    from tflite_export.bench.result import Result


def _configure_benchmark(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    from tflite_export.bench.harness import TARGETS, target_module

    parser.description = (
        "Measures files on a target; several are timed by turns and compared with the first. "
        "Options of a target: benchmark --target T --help."
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help=".tflite files")
    parser.add_argument("--target", choices=tuple(TARGETS), default="host", help="where; host when left out")
    parser.add_argument("--runs", type=int, default=50, help="timed inferences of each file; 50")
    parser.add_argument("--threads", type=int, default=1, help="of the runtime; 1")
    parser.add_argument("--profile", action="store_true", help="time each operation, too")
    parser.add_argument("--data", metavar="FILE", help="inputs: .npz by input name, or .npy; made up when left out")
    parser.add_argument("--labels", metavar="NAME", help="array of right classes in the .npz, for the accuracy")
    parser.add_argument("--json", metavar="FILE", help="append a line of JSON to FILE for each file as it is done")
    parser.add_argument("--csv", metavar="FILE", help="write all results to FILE as comma-separated values")
    scan = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    scan.add_argument("--target", default="host")
    target = scan.parse_known_args(argv)[0].target
    if target not in TARGETS:
        return
    module = target_module(target)
    group = parser.add_argument_group(f"target {target}: {module.SUMMARY}")
    if module.ACCELERATORS:
        group.add_argument("--accelerator", choices=tuple(module.ACCELERATORS), help="what does the work")
    for name, text in module.OPTIONS.items():
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, dest=f"option_{name}", metavar="VALUE", help=text.replace("%", "%%"))


def _benchmark(arguments: argparse.Namespace) -> int:
    from tflite_export.bench.harness import measure, named
    from tflite_export.bench.job import Job
    from tflite_export.bench.tables import table
    from tflite_export.cli.data import rows_of
    from tflite_export.files import write_whole

    if arguments.labels and not arguments.data:
        raise ValueError("--labels names an array of --data, which is left out")
    samples, labels = rows_of(arguments.data, arguments.labels) if arguments.data else (None, None)
    given = vars(arguments)
    options = {
        key.removeprefix("option_"): value
        for key, value in given.items()
        if key.startswith("option_") and value is not None
    }
    results: list[Result] = []
    with _told() as tell, _appended(arguments.json) as append:

        def finished(result: "Result") -> None:
            results.append(result)
            append(result.to_json() + "\n")

        job = Job(
            files=named(arguments.files),
            runs=arguments.runs,
            threads=arguments.threads,
            accelerator=given.get("accelerator"),
            profile=arguments.profile,
            samples=samples,
            options=options,
            progress=tell,
            finished=finished,
        )
        try:
            results = measure(job, arguments.target, labels)
        finally:
            # An interruption leaves what is done.
            found = table(results)
            if results:
                sys.stdout.write(f"{found}\n")
            if arguments.csv and results:
                write_whole(arguments.csv, found.csv().encode())
    return 0 if all(result.status == "ok" for result in results) else 1


@contextlib.contextmanager
def _told() -> Iterator[Callable[[str], None]]:
    """Something that shows one line of progress on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda line: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("starting") as status:
        yield lambda line: status.update(Text(line))


@contextlib.contextmanager
def _appended(path: str | None) -> Iterator[Callable[[str], object]]:
    """Something that appends to a file, each piece at once."""
    if path is None:
        yield lambda text: None
        return
    with Path(path).open("a", encoding="utf-8") as out:

        def append(text: str) -> None:
            out.write(text)
            out.flush()

        yield append


def _configure_report(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("results", metavar="RESULTS", nargs="+", help="files that `benchmark --json` wrote")
    parser.add_argument("-o", "--out", metavar="FILE", required=True, help="the page, such as report.html")


def _report(arguments: argparse.Namespace) -> int:
    from tflite_export.bench.page import report

    results = [result for path in arguments.results for result in _read(path)]
    sys.stdout.write(f"{report(results, arguments.out)}\n")
    return 0


def _read(path: str) -> Iterator[Any]:
    from tflite_export.bench.result import Result

    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a file of results: {error.reason}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield Result.from_json(line)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error


def _configure_doctor(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")


def _doctor(arguments: argparse.Namespace) -> int:
    from tflite_export.bench.doctor import checkup

    found = checkup()
    sys.stdout.write((json.dumps(found.rows(), indent=1) if arguments.json else str(found)) + "\n")
    return 0


def _configure_page(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("--port", type=int, default=0, help="to listen on; default: any free one")
    parser.add_argument("--modules", metavar="DIR", help="folder with node_modules; default: in the user's cache")


def _page(arguments: argparse.Namespace) -> int:
    import webbrowser

    from tflite_export.bench.web import demo

    def started(address: str) -> None:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        webbrowser.open(address)

    demo(arguments.modules, port=arguments.port, started=started)
    return 0


COMMANDS: tuple[Command, ...] = (
    Command("benchmark", "time, memory and right outputs on a real runtime", _configure_benchmark, _benchmark),
    Command("report", "one page of results", _configure_report, _report),
    Command("page", "a page in the browser that runs files dropped on it", _configure_page, _page),
    Command("doctor", "which targets work on this machine, and what the others need", _configure_doctor, _doctor),
)
