"""The `tfcompress` command: parsing and printing, nothing else.

TensorFlow is imported by the command that needs it, so that `--help` answers at once and without it.
"""

import argparse
import importlib
import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from absl.flags import argparse_flags
from rich.console import Console


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments without the program's name; None takes those of the process.

    Returns:
        The exit status: 0, 1 when the command failed, 130 when it was interrupted. A wrong argument exits with 2.
    """
    parser = _parser()
    options = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    console = Console(stderr=True, soft_wrap=True)
    try:
        return _COMMANDS[options.command](options)
    except KeyboardInterrupt:
        console.print("interrupted", style="yellow")
        return 130
    except Exception as error:
        if not isinstance(error, (ValueError, OSError, *_failures())) and type(error) is not ImportError:
            raise
        console.print(f"tfcompress {options.command}: {error}", style="red", markup=False, highlight=False)
        return 1


def _failures() -> tuple[type[Exception], ...]:
    from tfcompress.core.errors import CompressionError
    from tflite_export.errors import ExportError

    return CompressionError, ExportError


def _parser() -> argparse.ArgumentParser:
    parser = argparse_flags.ArgumentParser(prog="tfcompress", description="Compress Keras models for the edge.")
    parser.add_argument("--version", action="version", version=importlib.metadata.version("tfcompress"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="train a small network, quantize it, export it and measure the files",
        description="Trains a small convolutional network, then writes it as float32, float16, INT8 without training "
        "and INT8 trained with quantization, and measures the four files on the real runtime.",
    )
    demo.add_argument(
        "--data",
        type=Path,
        metavar="FILE.npz",
        help="images and labels: arrays x_train, y_train, x_test, y_test; default: the digits of scikit-learn",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("demo_out"), metavar="DIR", help="folder to write to (%(default)s)"
    )
    demo.add_argument("--epochs", type=_positive, metavar="N", help="epochs of float training; default: fits the data")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1. Received: {text!r}")
    return int(text)


@contextmanager
def _native_log_dropped() -> Iterator[None]:
    """TensorFlow's libraries write to file descriptor 2 while they load, whatever log level is asked for."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _demo(options: argparse.Namespace) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _native_log_dropped():
        importlib.import_module("tfcompress.core.flavor")
    for name in ("absl", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from tfcompress.demo.run import run

    run(data=options.data, out=options.out, epochs=options.epochs, console=Console())
    return 0


_COMMANDS = {"demo": _demo}

if __name__ == "__main__":
    sys.exit(main())
