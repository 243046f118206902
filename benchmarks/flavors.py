"""A benchmark runs in a process of its own for each flavor of Keras: one process knows one flavor."""

import argparse
import os
import subprocess
import sys

FLAVORS = {"keras3": "0", "tf_keras": "1"}
ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONWARNINGS": "ignore"}


def environment(flavor: str, **more: str) -> dict[str, str]:
    """The environment of a process of this flavor."""
    return {**os.environ, **ENVIRONMENT, **more, "TF_USE_LEGACY_KERAS": FLAVORS[flavor]}


def current() -> str:
    """The flavor of this process."""
    return "tf_keras" if os.environ.get("TF_USE_LEGACY_KERAS") == "1" else "keras3"


def add_flavor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--flavor", choices=(*FLAVORS, "both"), default="both", help="default: %(default)s")


def chosen(flavor: str) -> list[str]:
    return list(FLAVORS) if flavor == "both" else [flavor]


def each(flavor: str) -> None:
    """Runs the calling script once for each flavor asked for and ends the process, unless it is such a run itself."""
    if os.environ.get("BENCHMARK_CHILD"):
        return
    status = 0
    for name in chosen(flavor):
        print(f"\n=== {name}", flush=True)
        done = subprocess.run([sys.executable, *sys.argv], env=environment(name, BENCHMARK_CHILD="1"), check=False)
        status = status or done.returncode
    sys.exit(status)
