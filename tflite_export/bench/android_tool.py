"""`benchmark_model` on a phone: its flags, one call, and what files go in and come out.

The tool is the user's binary. Its versions know different flags, which stand in it as text: that is where they are
looked up, since a flag that is not known is skipped without an error.
"""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.bench.adb import Adb, AdbError
from tflite_export.bench.inputs import Feeds
from tflite_export.bench.job import Missing
from tflite_export.flatbuffer import read

GET_BINARY = (
    "pass `binary`, the path of benchmark_model built for the phone: `bazel build -c opt --config=android_arm64 "
    "//tflite/tools/benchmark:benchmark_model` in a checkout of LiteRT, or the prebuilt "
    "android_aarch64_benchmark_model of https://ai.google.dev/edge/litert/models/measurement"
)
# Accelerator -> flags of TFLite's tool, of LiteRT's; None where the tool has none.
_FLAGS: Mapping[str, tuple[Sequence[str] | None, Sequence[str] | None]] = {
    "xnnpack": (["--use_xnnpack=true"], ["--use_cpu=true"]),
    "cpu": (["--use_xnnpack=false"], None),
    "gpu": (["--use_gpu=true"], ["--use_gpu=true"]),
    "nnapi": (["--use_nnapi=true"], None),
    "hexagon": (["--use_hexagon=true"], None),
    "npu": (None, ["--use_npu=true"]),
}
ACCELERATORS = tuple(_FLAGS)
# ELF's e_machine -> Android's name of the instruction set.
_MACHINES = {0x28: "armeabi-v7a", 0xB7: "arm64-v8a", 0x03: "x86", 0x3E: "x86_64", 0xF3: "riscv64"}


@dataclass(frozen=True)
class Tool:
    """The user's binary, with libraries that go beside it.

    Attributes:
        content: its bytes.
        libraries: name -> bytes.
        flags: further flags of the user.
        taskset: mask of the processors that it may run on, hexadecimal; "" for all.
    """

    content: bytes
    libraries: Mapping[str, bytes]
    flags: tuple[str, ...]
    taskset: str

    @cached_property
    def is_litert(self) -> bool:
        """LiteRT 2's tool, not the classic one of TFLite."""
        return self.knows("dispatch_library_path") and not self.knows("use_xnnpack")

    def knows(self, flag: str) -> bool:
        """Whether this version has the flag."""
        return flag.encode() in self.content

    def abi(self) -> str:
        """The instruction set that it is built for; "" for what is no ELF file."""
        if self.content[:4] != b"\x7fELF":
            return ""
        machine = int.from_bytes(self.content[18:20], "little")
        return _MACHINES.get(machine, f"machine {machine:#x}")

    def accelerate(self, accelerator: str) -> Sequence[str]:
        """Flags of an accelerator.

        Raises:
            ValueError: this tool cannot do it; the message says which can.
        """
        flags = _FLAGS[accelerator][self.is_litert]
        if flags is None:
            mine, other = ("LiteRT", "TFLite") if self.is_litert else ("TFLite", "LiteRT")
            raise ValueError(f"{mine}'s benchmark_model cannot be told to use {accelerator!r}; that of {other} can")
        return flags


def tool_of(options: Mapping[str, Any]) -> Tool | Missing:
    """The tool that the options describe, or what is missing.

    Raises:
        ValueError: an option has a wrong value.
    """
    taskset = str(options.get("taskset") or "").lower().removeprefix("0x")
    if taskset and not re.fullmatch(r"[0-9a-f]+", taskset):
        raise ValueError(f"`taskset` must be a hexadecimal mask such as 'f0'. Received: {options['taskset']!r}")
    flags = options.get("flags") or ()
    flags = tuple(shlex.split(flags) if isinstance(flags, str) else map(str, flags))
    if any(not flag.startswith("--") for flag in flags):
        raise ValueError(f"`flags` must each start with '--'. Received: {list(flags)}")
    binary = options.get("binary")
    if not binary:
        return Missing("benchmark_model for Android", GET_BINARY)
    named = options.get("libraries") or ()
    paths = [Path(one) for one in (named.split(os.pathsep) if isinstance(named, str) else named)]
    for path in (Path(binary), *paths):
        if not path.is_file():
            return Missing(f"the file {str(path)!r}", GET_BINARY if path == Path(binary) else "check `libraries`")
    return Tool(Path(binary).read_bytes(), {path.name: path.read_bytes() for path in paths}, flags, taskset)


class Bench:
    """A folder on the phone with the tool in it."""

    def __init__(self, adb: Adb, tool: Tool, folder: str, timeout: float) -> None:
        """Names the folder; `prepare` makes it.

        Args:
            adb: the phone.
            tool: what is run.
            folder: on the phone; its name must need no quotes.
            timeout: seconds of each call.
        """
        self._adb, self._tool, self._folder, self._timeout = adb, tool, folder, timeout

    def prepare(self) -> None:
        """Copies the tool to the phone.

        Raises:
            AdbError: the phone does not take it.
        """
        made = self._adb.shell(f"mkdir -p {self._folder}", timeout=30)
        if made.code:
            raise AdbError(f"{self._folder} cannot be made on the phone: {made.text.strip()}")
        self.push(self._tool.content, "benchmark_model")
        for name, content in self._tool.libraries.items():
            self.push(content, name)
        self._adb.shell(f"chmod 755 {self._folder}/benchmark_model", timeout=30)

    def push(self, content: bytes, name: str) -> None:
        """Writes a file into the folder."""
        self._adb.push(content, f"{self._folder}/{shlex.quote(name)}", timeout=self._timeout)

    def pull(self, name: str) -> bytes:
        """Reads a file of the folder."""
        return self._adb.pull(f"{self._folder}/{name}", timeout=self._timeout)

    def call(self, flags: Sequence[str]) -> tuple[int, str]:
        """Runs the tool with the user's flags behind these.

        Returns:
            Its exit status and all that it printed.

        Raises:
            AdbError: it took too long, and was ended; or the phone is gone.
        """
        tool = ["taskset", self._tool.taskset] if self._tool.taskset else []
        words = [*tool, "./benchmark_model", *flags, *self._tool.flags]
        run = f"echo $$ > pid; exec {shlex.join(words)}"
        where = f"cd {self._folder} && LD_LIBRARY_PATH=. ADSP_LIBRARY_PATH=."
        try:
            answer = self._adb.shell(f"{where} sh -c {shlex.quote(run)}", timeout=self._timeout)
        except BaseException as error:
            # Ending adb here does not end the tool there, which would go on heating the phone.
            if not (isinstance(error, AdbError) and error.gone):
                self._adb.shell(f"kill -9 $(cat {self._folder}/pid)", timeout=30)
            if isinstance(error, AdbError) and not error.gone:
                raise AdbError(f"benchmark_model did not end within {self._timeout:g} s and was stopped") from error
            raise
        return answer.code, answer.text

    def remove(self) -> str:
        """Deletes the folder; "", or what is left behind."""
        return self._adb.remove(self._folder)


@dataclass(frozen=True)
class Exchange:
    """The inputs that a file gets from this computer and the outputs that come back.

    Attributes:
        feeds: one inference of inputs; None when the tool makes up its own.
        flags: that name the files of the inputs.
        files: name in the folder -> bytes.
        outputs: (name, bytes) of the file's outputs in its order; empty when they cannot be compared.
        reason: why something is not exchanged; "".
    """

    feeds: Feeds | None
    flags: tuple[str, ...]
    files: Mapping[str, bytes]
    outputs: tuple[tuple[str, int], ...]
    reason: str

    def read_outputs(self, written: bytes) -> dict[str, bytes]:
        """name -> bytes of the file that `--output_filepath` names, which holds the outputs end to end."""
        found, at = {}, 0
        for name, size in self.outputs:
            found[name] = written[at : at + size]
            at += size
        return found if at == len(written) else {}


def exchange(content: bytes, feeds: Feeds, tool: Tool, number: int) -> Exchange:
    """What goes to the phone with a file, and what comes back.

    Args:
        content: of the file.
        feeds: its inputs; the first inference of them is used.
        tool: that runs it.
        number: of the file, for names in the folder.
    """
    model = read(content)
    signature = model.signature()
    graph = model.subgraphs[signature.subgraph]
    feeds = feeds.head(1)
    flags = [f"--signature_to_run_for={signature.key}"] if signature.key and tool.knows("signature_to_run_for") else []
    names = {index: name for name, index in signature.inputs.items()}
    arrays = {index: feeds.arrays[names[index]] for index in graph.inputs if index in names}
    plain = all(array.ndim and array.dtype.kind in "biuf" for array in arrays.values())
    if not tool.knows("input_layer_value_files") or not plain or len(arrays) < len(graph.inputs):
        own = "this benchmark_model takes no inputs" if plain else "it has inputs without axes, or text"
        return Exchange(None, tuple(flags), {}, (), f"{own}: it ran on random values, its outputs were not checked")
    files = {f"in{number}_{position}": array.tobytes() for position, array in enumerate(arrays.values())}
    flags += [
        "--input_layer=" + ",".join(files),
        "--input_layer_shape=" + ":".join(",".join(map(str, array.shape)) for array in arrays.values()),
        "--input_layer_value_files=" + ",".join(f"{name}:{name}" for name in files),
    ]
    back = {index: name for name, index in signature.outputs.items()}
    outputs = [(back.get(index), graph.tensors[index]) for index in graph.outputs]
    reason = ""
    if not tool.knows("output_filepath"):
        reason = "this benchmark_model writes no outputs: they were not checked"
    elif any(name is None or tensor.dtype is None for name, tensor in outputs):
        reason = "the outputs were not checked: some have no name or no plain type"
    elif any(tensor.is_variable for tensor in graph.tensors):
        reason = "the outputs were not checked: the file keeps a state between inferences"
    sizes = [
        (str(name), int(np.prod(tensor.shape)) * tensor.dtype.itemsize)
        for name, tensor in outputs
        if tensor.dtype is not None and not reason
    ]
    return Exchange(feeds, tuple(flags), files, tuple(sizes), reason)
