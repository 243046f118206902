"""The `tflite-export` command: parsing and printing only. Needs no TensorFlow.

Exit status: 0; 1 when the answer is no (an audited file does not run on the target, a benchmarked one failed); 2 when
the arguments or a file are wrong; 130 when interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from tflite_export.cli import files, measuring, metadata
from tflite_export.cli.command import Command

COMMANDS: tuple[Command, ...] = (*files.COMMANDS, *metadata.COMMANDS, *measuring.COMMANDS)
_INTERRUPTED = 130


def parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The command line: one subparser for each of `COMMANDS`.

    Args:
        argv: what will be parsed. Arguments of the one command in it are added, those of the others are not asked for.
    """
    result = argparse.ArgumentParser(
        prog="tflite-export", description="Look into .tflite files, check where they run, and measure them there."
    )
    subparsers = result.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((argument for argument in argv if not argument.startswith("-")), "")
    for command in COMMANDS:
        sub = subparsers.add_parser(command.name, help=command.summary, description=command.summary)
        if command.name == asked:
            command.configure(sub, argv)
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

    argv = sys.argv[1:] if argv is None else argv
    try:
        arguments = parser(argv).parse_args(argv)
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        sys.stderr.write("tflite-export: interrupted\n")
        return _INTERRUPTED
    except OSError as error:
        where = f": {error.filename!r}" if error.filename else ""
        message = f"{error.strerror or error}{where}"
    except (ExportError, ValueError) as error:
        message = " ".join(str(error).split())
    sys.stderr.write(f"tflite-export: {message}\n")
    return 2
