"""The `tflite-export` command: reads files; parsing and printing only. Needs no TensorFlow.

Exit status: 0, or 2 when the arguments or the file are wrong.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Up to here the size after gzip is part of every inspection; packing takes 30 ms a megabyte.
_GZIP_BYTES = 4_000_000


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: as it is typed.
        summary: one line of help.
        configure: adds its arguments.
        run: does it, writes to standard output, returns the exit status.
    """

    name: str
    summary: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def _configure_inspect(parser: argparse.ArgumentParser) -> None:
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


COMMANDS: tuple[Command, ...] = (
    Command("inspect", "what is in a file: operations, bytes, MACs, zeros", _configure_inspect, _inspect),
)


def parser() -> argparse.ArgumentParser:
    """The command line: one subparser for each of `COMMANDS`."""
    result = argparse.ArgumentParser(prog="tflite-export", description="Look into .tflite files.")
    subparsers = result.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = subparsers.add_parser(command.name, help=command.summary, description=command.summary)
        command.configure(sub)
        sub.set_defaults(run=command.run)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: without the program's name; the process's own when left out.

    Returns:
        The exit status.
    """
    from tflite_export.errors import ExportError

    arguments = parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f": {error.filename!r}" if error.filename else ""
        message = f"{error.strerror or error}{where}"
    except (ExportError, ValueError) as error:
        message = " ".join(str(error).split())
    sys.stderr.write(f"tflite-export: {message}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
