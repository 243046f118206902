"""Command `metadata`: what a file says of itself is printed, or written into a copy."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tflite_export.cli.command import Command

_TEXTS = ("name", "description", "version", "author", "license")


def _configure(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    parser.description = (
        "Prints the metadata of a file; with -o writes a copy that has the given ones instead. "
        "Several inputs or outputs: tflite_export.write_metadata."
    )
    parser.add_argument("file", metavar="FILE", help="a .tflite file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    group = parser.add_argument_group("writing")
    group.add_argument("-o", "--out", metavar="FILE", help="the copy; may be the file itself")
    for text in _TEXTS:
        group.add_argument(f"--{text}", metavar="TEXT", default="", help="of the model")
    group.add_argument("--labels", metavar="FILE", help="label file, one class a line, of the only output")
    group.add_argument("--color", choices=("rgb", "grayscale"), help="the only input is an image")
    group.add_argument("--mean", type=float, nargs="+", metavar="X", help="of the only input: (value - mean) / std")
    group.add_argument("--std", type=float, nargs="+", metavar="X", help="one number, or one for each channel")
    group.add_argument(
        "--rename", metavar="OLD=NEW", action="append", default=[], help="an input or output in the signatures"
    )


def _metadata(arguments: argparse.Namespace) -> int:
    from tflite_export.files import write_whole
    from tflite_export.metadata import read_metadata, write_metadata

    given = {text: getattr(arguments, text) for text in _TEXTS if getattr(arguments, text)}
    told: dict[str, Any] = {
        "inputs": {name: getattr(arguments, name) for name in ("color", "mean", "std") if getattr(arguments, name)},
        "outputs": {"labels": arguments.labels} if arguments.labels else {},
    }
    if arguments.out is None:
        if given or any(told.values()) or arguments.rename:
            raise ValueError("What is to be written needs -o FILE, the copy that it is written into")
    else:
        sides: dict[str, Any] = {side: _only(arguments.file, side, entry) for side, entry in told.items() if entry}
        renamed = dict(_pair(text) for text in arguments.rename)
        content = write_metadata(arguments.file, **given, **sides, rename=renamed or None)
        write_whole(arguments.out, content)
    found = read_metadata(arguments.out or arguments.file)
    text = str(found)
    if arguments.json:
        record = asdict(found) | {"files": {name: len(content) for name, content in found.files.items()}}
        text = json.dumps(record, ensure_ascii=False, indent=1)
    sys.stdout.write(text + "\n")
    return 0


def _only(path: str, side: str, entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The entry as that of the only input or output."""
    from tflite_export.flatbuffer import read

    names = list(getattr(read(Path(path)).signature(), side))
    if len(names) != 1:
        raise ValueError(f"{list(entry)} need a file with one of its {side}. It has {names}: use write_metadata")
    return [entry]


def _pair(text: str) -> tuple[str, str]:
    old, sign, new = text.partition("=")
    if not (old and sign and new):
        raise ValueError(f"--rename takes OLD=NEW. Received: {text!r}")
    return old, new


COMMANDS: tuple[Command, ...] = (
    Command("metadata", "labels, normalisation, author: read, or written into a copy", _configure, _metadata),
)
