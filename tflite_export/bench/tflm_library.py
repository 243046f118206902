"""tflite-micro as a library for one processor: compiled from a checkout of the user's, kept for the next time.

Of the kernels only those are compiled that register an operation of the file, and the helpers that register none.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tflite_export.bench.cache import cache_folder
from tflite_export.bench.job import Missing
from tflite_export.errors import ExportError
from tflite_export.resolver import HEADER

DOWNLOADS = Path("tensorflow", "lite", "micro", "tools", "make", "downloads")
_MICRO = Path("tensorflow", "lite", "micro")
_NEEDED = ("flatbuffers/include", "gemmlowp", "ruy")
# Not part of the library: tests and their mocks, and what the firmware brings itself.
_LEFT_OUT = re.compile(r"_test\.cc$|test_helper|fake_|mock_|kernel_runner|/debug_log\.cc$|lite/array\.cc$")
_REGISTERS = re.compile(r"\b(Register_\w+)\s*\(\s*\)\s*\{")
_FLAGS = (
    "-O2 -w -ffunction-sections -fdata-sections -fno-unwind-tables -fno-asynchronous-unwind-tables -fmessage-length=0 "
    "-DNDEBUG -DTF_LITE_STATIC_MEMORY -DTF_LITE_DISABLE_X86_NEON -DTF_LITE_MCU_DEBUG_LOG"
).split()
CXX = "-std=c++17 -fno-rtti -fno-exceptions -fno-threadsafe-statics".split()


@dataclass(frozen=True)
class Toolchain:
    """How sources are compiled.

    Attributes:
        prefix: of the tools, such as "arm-none-eabi-".
        flags: of the processor.
        optimized: use CMSIS-NN's kernels, not the reference ones.
    """

    prefix: str
    flags: tuple[str, ...]
    optimized: bool


def missing_sources(checkout: Path, *, optimized: bool) -> list[Missing]:
    """What a checkout lacks: it is none, or its own Makefile has not downloaded the sources of others."""
    if not (checkout / HEADER).is_file():
        command = "git clone https://github.com/tensorflow/tflite-micro, then tflm=its folder"
        return [Missing(f"a checkout of tflite-micro in {checkout}", command)]
    wanted = (*_NEEDED, *(("cmsis/CMSIS/Core/Include", "cmsis_nn/Source") if optimized else ()))
    absent = [name for name in wanted if not (checkout / DOWNLOADS / name).is_dir()]
    if not absent:
        return []
    make = "make -f tensorflow/lite/micro/tools/make/Makefile TARGET=cortex_m_generic TARGET_ARCH=cortex-m4+fp"
    command = f"cd {checkout} && {make} OPTIMIZED_KERNEL_DIR=cmsis_nn third_party_downloads"
    return [Missing(f"{', '.join(absent)} in {checkout / DOWNLOADS}", command)]


def compile_flags(checkout: Path, toolchain: Toolchain) -> list[str]:
    """Flags with which everything is compiled that includes the library's headers."""
    downloads = checkout / DOWNLOADS
    folders = [checkout, *(downloads / name for name in _NEEDED)]
    flags = [*toolchain.flags, *_FLAGS]
    if toolchain.optimized:
        nn = downloads / "cmsis_nn"
        folders += [downloads / "cmsis", downloads / "cmsis/CMSIS/Core/Include", nn, nn / "Include"]
        flags += ["-DCMSIS_NN", "-DARM_NN_ENABLE_F16=0", "-DARM_NN_ENABLE_F32=0"]
    return [*flags, *(f"-I{folder}" for folder in folders)]


def library(
    checkout: Path, toolchain: Toolchain, methods: Sequence[str], progress: Callable[[str], None]
) -> list[Path]:
    """Compiles what a file needs, as far as it is not compiled yet.

    Args:
        checkout: of tflite-micro.
        toolchain: the compiler.
        methods: of the resolver, such as "AddConv2D".
        progress: called with one line of text every now and then.

    Returns:
        The object files.

    Raises:
        ExportError: a source does not compile; the message holds the compiler's first error.
    """
    flags = compile_flags(checkout, toolchain)
    state = " ".join([str(checkout), _state(checkout), toolchain.prefix, *flags])
    folder = cache_folder("tflm", hashlib.sha256(state.encode()).hexdigest()[:16])
    folder.mkdir(parents=True, exist_ok=True)
    sources = list(_sources(checkout, toolchain, _registrations(checkout, methods)))
    objects = [folder / (hashlib.sha256(str(source).encode()).hexdigest()[:24] + ".o") for source in sources]
    waiting = [(s, o) for s, o in zip(sources, objects, strict=True) if not o.is_file()]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        work = [pool.submit(compile_one, source, target, toolchain, flags) for source, target in waiting]
        try:
            for number, done in enumerate(work):
                if number % 20 == 0:
                    progress(f"compiling tflite-micro: {number} of {len(work)} files")
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return objects


def compile_one(source: Path, target: Path, toolchain: Toolchain, flags: Sequence[str]) -> None:
    """Compiles one source; the object file appears whole or not at all.

    Raises:
        ExportError: it does not compile.
    """
    cpp = source.suffix == ".cc"
    compiler = toolchain.prefix + ("g++" if cpp else "gcc")
    beside = target.with_suffix(f".{os.getpid()}.part")
    command = [compiler, *(CXX if cpp else ["-std=c17"]), *flags, "-c", str(source), "-o", str(beside)]
    done = subprocess.run(command, capture_output=True, check=False, text=True, errors="replace")
    if done.returncode:
        beside.unlink(missing_ok=True)
        lines = done.stderr.splitlines()
        cause = next((line for line in lines if "error" in line), lines[-1] if lines else "it said nothing")
        raise ExportError(f"{source.name} does not compile: {cause.strip()}")
    shutil.move(beside, target)


def _state(checkout: Path) -> str:
    """What changes when the checkout does."""
    head = checkout / ".git" / "HEAD"
    text = head.read_text(encoding="utf-8").strip() if head.is_file() else ""
    if text.startswith("ref: ") and (reference := checkout / ".git" / text[5:]).is_file():
        text = reference.read_text(encoding="utf-8").strip()
    return f"{text} {(checkout / _MICRO / 'micro_interpreter.cc').stat().st_mtime_ns}"


def _registrations(checkout: Path, methods: Iterable[str]) -> set[str]:
    """Names of the functions that the resolver's methods call: "Register_CONV_2D"."""
    text = (checkout / HEADER).read_text("utf-8", "replace")
    wanted = set(methods)
    found: set[str] = set()
    for part in re.split(r"TfLiteStatus (?=Add\w+\()", text)[1:]:
        if part.partition("(")[0] in wanted:
            found |= set(re.findall(r"\bRegister_\w+", part))
    return found


def _sources(checkout: Path, toolchain: Toolchain, registrations: set[str]) -> Iterable[Path]:
    """The library's sources, kernels of operations that are not registered left out."""
    micro = checkout / _MICRO
    for folder in ("", "arena_allocator", "memory_planner", "tflite_bridge"):
        yield from _kept((micro / folder).glob("*.cc"))
    for part in ("core", "kernels", "schema"):
        yield from _kept((checkout / "tensorflow" / "lite" / part).rglob("*.cc"))
    yield from _kept((checkout / "tensorflow" / "compiler").rglob("*.cc"))
    optimized = {p.name: p for p in (micro / "kernels" / "cmsis_nn").glob("*.cc")} if toolchain.optimized else {}
    for source in _kept((micro / "kernels").glob("*.cc")):
        source = optimized.get(source.name, source)
        registers = set(_REGISTERS.findall(source.read_text("utf-8", "replace")))
        if not registers or registers & registrations:
            yield source
    if toolchain.optimized:
        for source in sorted((checkout / DOWNLOADS / "cmsis_nn" / "Source").rglob("*.c")):
            if not re.search(r"_f(16|32)\.c$|nntables_flt\.c$", source.name):
                yield source


def _kept(sources: Iterable[Path]) -> Iterable[Path]:
    return (source for source in sorted(sources) if not _LEFT_OUT.search(source.as_posix()))
