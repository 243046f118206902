"""A folder with an ARM64 Debian's Python and LiteRT's aarch64 wheels, to be run by QEMU.

    python -m tflite_export.bench.arm64_root DIR

Nothing is installed on the machine and no right of an administrator is needed: apt resolves and downloads packages of
another architecture into a folder of its own, with the machine's own sources and keys, and dpkg-deb unpacks them.

    DIR/root    the packages                    DIR/root/proc/cpuinfo    of the emulated processor
    DIR/site    the wheels                      DIR/python               name of the interpreter, "python3.11"
"""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tflite_export.bench.cache import cache_folder
from tflite_export.errors import ExportError

# `-cpu` of QEMU -> part number and features that /proc/cpuinfo must show: LiteRT picks kernels by them, and kernels
# that the emulated processor lacks end the process.
PROCESSORS = {
    "cortex-a53": ("0xd03", "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"),
    "cortex-a76": (
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
}
LITERT = "2.3.0"
_TAGS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64", "any")
_TOOLS = {"apt-get": "a Debian system", "dpkg-deb": "a Debian system"}


def prepare(folder: Path, *, progress: Callable[[str], None] = lambda line: None) -> Path:
    """Downloads and unpacks everything; 30 s, 180 MB on disk.

    Args:
        folder: to be filled; what is there already is kept when it is whole.
        progress: called with one line of text at each step.

    Returns:
        The folder.

    Raises:
        ExportError: a tool is missing or failed; the message holds its words.
    """
    for tool, where in _TOOLS.items():
        if shutil.which(tool) is None:
            raise ExportError(f"{tool} is missing: the root is prepared on {where}")
    if is_whole(folder):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    apt = _apt(folder)
    progress("reading the lists of packages")
    _called(["apt-get", *apt, "-qq", "update"])
    python = _python(_called(["apt-cache", *apt, "show", "python3"]))
    progress(f"downloading {python} for arm64")
    wanted = [f"{python}-minimal", f"lib{python}-stdlib", "libstdc++6", "zlib1g"]
    flags = ["-qq", "-y", "--no-install-recommends", "--download-only"]
    _called(["apt-get", *apt, *flags, "install", *wanted])
    root = folder / "root"
    root.mkdir(exist_ok=True)
    for archive in sorted((folder / "apt" / "archives").glob("*.deb")):
        _called(["dpkg-deb", "-x", str(archive), str(root)])
    progress("downloading LiteRT for arm64")
    download = [sys.executable, "-m", "pip", "download", "-q", "-d", str(folder / "wheels"), "--only-binary=:all:"]
    tags = [word for tag in _TAGS for word in ("--platform", tag)]
    version = python.removeprefix("python")
    _called([*download, *tags, "--python-version", version, f"ai-edge-litert=={LITERT}"])
    for wheel in sorted((folder / "wheels").glob("*.whl")):
        shutil.unpack_archive(wheel, folder / "site", format="zip")
    for left in ("apt", "wheels"):
        shutil.rmtree(folder / left, ignore_errors=True)
    (folder / "python").write_text(python + "\n", encoding="utf-8")
    return folder


def is_whole(folder: Path) -> bool:
    """Whether a folder was prepared to the end."""
    return (folder / "python").is_file() and (folder / "site" / "ai_edge_litert").is_dir()


def cpuinfo(processor: str, cores: int = 2) -> str:
    """The text of /proc/cpuinfo of an emulated processor; without it LiteRT reads the host's and crashes."""
    part, features = PROCESSORS[processor]
    return "".join(
        f"processor\t: {core}\nBogoMIPS\t: 100.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: {part}\nCPU revision\t: 0\n\n"
        for core in range(cores)
    )


def _apt(folder: Path) -> list[str]:
    """Options that give apt a state of its own, as if it were on an ARM64 system with no package installed."""
    state = folder / "apt"
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    settings = {
        "Dir::State::lists": state / "lists",
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "Dir::Cache::archives": state / "archives",
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def _python(shown: str) -> str:
    """ "python3.11" out of what apt says of Debian's default Python."""
    match = re.search(r"^Version: (\d+\.\d+)\.", shown, re.MULTILINE)
    if not match:
        raise ExportError("apt knows no python3 for arm64: this needs the package sources of a Debian system")
    return f"python{match[1]}"


def _called(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, check=False, text=True, errors="replace")
    if done.returncode:
        said = " | ".join(line.strip() for line in done.stderr.splitlines()[-3:]) or "it said nothing"
        raise ExportError(f"{command[0]} failed: {said}")
    return done.stdout


def main() -> None:
    """Prepares the folder that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tflite_export.bench.arm64_root", description="Prepares ARM64.")
    parser.add_argument("folder", nargs="?", type=Path, default=cache_folder("arm64"), help="default: %(default)s")
    folder = parser.parse_args().folder

    def progress(line: str) -> None:
        sys.stderr.write(line + "\n")

    try:
        prepare(folder, progress=progress)
    except ExportError as error:
        parser.exit(1, f"{error}\n")
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main()
