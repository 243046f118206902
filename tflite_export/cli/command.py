"""What a subcommand is."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: as it is typed.
        summary: one line of help.
        configure: adds its arguments; gets what was typed, since some arguments depend on others.
        run: does it, writes to standard output, returns the exit status.
    """

    name: str
    summary: str
    configure: Callable[[argparse.ArgumentParser, Sequence[str]], None]
    run: Callable[[argparse.Namespace], int]
