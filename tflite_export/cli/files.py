"""Commands about what is in a file: inspect, compare, audit, firmware."""

import argparse
import json
import sys
from collections.abc import Sequence

from tflite_export.cli.command import Command

# Up to here the size after gzip is part of every inspection; packing takes 30 ms a megabyte.
_GZIP_BYTES = 4_000_000


def _configure_inspect(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("file", metavar="FILE", help="a .tflite file")
    parser.add_argument("--json", action="store_true", help="everything as JSON instead of tables")
    parser.add_argument("--tensors", action="store_true", help="list every tensor, too")
    parser.add_argument("--gzip", action="store_true", help="size after gzip also of files above 4 MB (slow)")


def _inspect(arguments: argparse.Namespace) -> int:
    from tflite_export.description import describe

    description = describe(arguments.file)
    packed = description.gzip_bytes() if arguments.gzip or description.size <= _GZIP_BYTES else None
    if arguments.json:
        text = json.dumps({**description.rows(), "gzip_bytes": packed}, indent=1)
    else:
        text = description.text(tensors=arguments.tensors, gzip_bytes=packed)
    sys.stdout.write(text + "\n")
    return 0


def _configure_compare(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    parser.description = (
        "Runs two files on the same inputs and says how far their outputs agree. "
        "A file beside its Keras model: tflite_export.compare."
    )
    parser.add_argument("first", metavar="FILE", help="a .tflite file, what is expected")
    parser.add_argument("second", metavar="FILE", help="a .tflite file that is compared with it")
    parser.add_argument("--data", metavar="FILE", help="inputs: .npz by input name, or .npy; made up when left out")
    parser.add_argument(
        "--kernels", choices=("xnnpack", "builtin", "reference"), default="xnnpack", help="that both run on; xnnpack"
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")


def _compare(arguments: argparse.Namespace) -> int:
    from tflite_export.cli.data import rows_of
    from tflite_export.file_pair import compare_files

    samples = rows_of(arguments.data)[0] if arguments.data else None
    found = compare_files(arguments.first, arguments.second, samples, kernels=arguments.kernels)
    sys.stdout.write((found.to_json() if arguments.json else str(found)) + "\n")
    return 0


def _configure_audit(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    from tflite_export.auditing.verdict import TARGETS

    parser.add_argument("file", metavar="FILE", help="a .tflite file")
    parser.add_argument("--target", required=True, choices=tuple(TARGETS), help="where it is to run")
    parser.add_argument("--accelerator", metavar="NAME", help="kind of the target's accelerator, such as ethos-u65-256")
    parser.add_argument("--strict", action="store_true", help="exit status 1 also when an operation falls back")
    parser.add_argument("--no-tools", action="store_true", help="ask the rules alone, not the runtime's own tools")
    parser.add_argument("--json", action="store_true", help="JSON instead of tables")


def _audit(arguments: argparse.Namespace) -> int:
    from tflite_export.auditing.verdict import audit

    found = audit(arguments.file, arguments.target, accelerator=arguments.accelerator, tools=not arguments.no_tools)
    sys.stdout.write((found.to_json() if arguments.json else str(found)) + "\n")
    return found.exit_status or int(arguments.strict and not found.fully_accelerated)


def _configure_firmware(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("file", metavar="FILE", help="a .tflite file")
    parser.add_argument("-o", "--out", metavar="DIR", required=True, help="folder that the sources are written to")
    parser.add_argument("--name", default="model", help="C identifier that files and constants start with; model")
    parser.add_argument("--tflm", metavar="DIR", help="a checkout of tflite-micro to take the operations from")


def _firmware(arguments: argparse.Namespace) -> int:
    from tflite_export.microcontroller import firmware

    sys.stdout.write(f"{firmware(arguments.file, arguments.out, name=arguments.name, tflm=arguments.tflm)}\n")
    return 0


COMMANDS: tuple[Command, ...] = (
    Command("inspect", "what is in a file: operations, bytes, MACs, zeros", _configure_inspect, _inspect),
    Command("compare", "do two files compute the same", _configure_compare, _compare),
    Command("audit", "which operations run on a target, and why the others do not", _configure_audit, _audit),
    Command("firmware", "C sources that run a file on a microcontroller", _configure_firmware, _firmware),
)
