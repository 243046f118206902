import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.tflite_export.handmade import dense, integer_dense
from tflite_export import ExportError
from tflite_export.bench import cortex_m, tflm_library
from tflite_export.bench.harness import benchmark
from tflite_export.bench.inputs import feeds
from tflite_export.bench.tflm_library import DOWNLOADS, Toolchain

# Printed by the firmware of `integer_dense` on the emulated Cortex-M4.
SAID = """calibration 2000000 400001
arena 772
output 0 0 fe05
output 1 0 0102
inference 730
event FULLY_CONNECTED 255
event FULLY_CONNECTED 349
done
"""
needs_compiler = pytest.mark.skipif(
    shutil.which("arm-none-eabi-g++") is None, reason="needs arm-none-eabi-g++: sudo apt-get install gcc-arm-none-eabi"
)


def test_ticks_become_instructions_by_the_known_loop():
    counts, arena, rows = cortex_m.figures(SAID)
    # 5 instructions a tick, but for one tick of 400 001.
    assert counts["instructions"] == pytest.approx(730 * 5, abs=0.1) and arena == 772
    assert [kind for kind, _ in rows] == ["FULLY_CONNECTED"] * 2 and rows[1][1] == pytest.approx(1745, abs=0.1)
    with pytest.raises(ExportError, match="not understood"):
        cortex_m.figures("arena 3\n")


def test_outputs_come_back_as_raw_integers():
    (values,) = cortex_m.outputs_of(integer_dense(), SAID).values()
    assert values.tolist() == [[[-2, 5]], [[1, 2]]] and values.dtype == np.int8
    with pytest.raises(ExportError, match="output 'y' came back with 1 bytes"):
        cortex_m.outputs_of(integer_dense(), "output 0 0 fe\n")


def test_inputs_are_written_as_bytes(tmp_path):
    given = feeds(integer_dense(), np.float32([[0.0, 1.0], [1.5, 2.0]]))  # 1, 3 and 4, 5 on the grid
    source = cortex_m._inputs_source(given)
    assert "input_0_0[] = {1,3};" in source and "input_1_0[] = {4,5};" in source and "board_sizes[] = {2};" in source
    assert "#define BOARD_FEEDS 2" in cortex_m._inputs_header(given)


def test_what_is_missing_comes_with_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    compiler, emulator, checkout = cortex_m.missing({})
    assert compiler.command.startswith("sudo apt-get install gcc-arm-none-eabi")
    assert emulator.command == "sudo apt-get install qemu-system-arm"
    assert checkout.command.startswith("git clone https://github.com/tensorflow/tflite-micro")
    (*_, lack) = cortex_m.missing({"tflm": str(tmp_path)})
    assert lack.what == f"a checkout of tflite-micro in {tmp_path}"
    pretend(tmp_path)
    (*_, lack) = cortex_m.missing({"tflm": str(tmp_path)})
    assert lack.what.startswith("cmsis/CMSIS/Core/Include, cmsis_nn/Source in")
    assert lack.command.endswith("third_party_downloads")
    assert len(cortex_m.missing({"tflm": str(tmp_path), "kernels": "reference"})) == 2


def pretend(folder: Path) -> None:
    """A checkout with two kernels, a helper, and one of them optimized."""
    micro = folder / "tensorflow" / "lite" / "micro"
    texts = {
        "micro_mutable_op_resolver.h":
            "TfLiteStatus AddConv2D(const TFLMRegistration& registration = Register_CONV_2D()) {\n"
            "TfLiteStatus AddAbs() { return AddBuiltin(BuiltinOperator_ABS, Register_ABS(), ParseAbs);\n",
        "micro_interpreter.cc": "int interpreter;",
        "fake_micro_context.cc": "int fake;",
        "debug_log.cc": "int log;",
        "kernels/conv.cc": "TFLMRegistration Register_CONV_2D() { return 1; }",
        "kernels/conv_common.cc": "int common;",
        "kernels/conv_test.cc": "int test;",
        "kernels/abs.cc": "TFLMRegistration Register_ABS() { return 1; }",
        "kernels/cmsis_nn/conv.cc": "TFLMRegistration Register_CONV_2D() { return 2; }",
    }  # fmt: skip
    for name, text in texts.items():
        (micro / name).parent.mkdir(parents=True, exist_ok=True)
        (micro / name).write_text(text)
    for name in ("flatbuffers/include", "gemmlowp", "ruy"):
        (folder / DOWNLOADS / name).mkdir(parents=True)


def test_only_kernels_that_are_registered_are_compiled(tmp_path):
    pretend(tmp_path)
    registrations = tflm_library._registrations(tmp_path, ["AddConv2D"])
    assert registrations == {"Register_CONV_2D"}
    micro = tmp_path / "tensorflow" / "lite" / "micro"

    def chosen(optimized: bool) -> list[str]:
        sources = tflm_library._sources(tmp_path, Toolchain("", (), optimized), registrations)
        return sorted(source.relative_to(micro).as_posix() for source in sources)

    assert chosen(False) == ["kernels/conv.cc", "kernels/conv_common.cc", "micro_interpreter.cc"]
    assert chosen(True) == ["kernels/cmsis_nn/conv.cc", "kernels/conv_common.cc", "micro_interpreter.cc"]


@needs_compiler
def test_a_source_that_does_not_compile_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "bad.cc").write_text("int main() { return unknown; }")
    with pytest.raises(ExportError, match=r"bad\.cc does not compile: .*'unknown' was not declared"):
        tflm_library.compile_one(tmp_path / "bad.cc", tmp_path / "bad.o", Toolchain("arm-none-eabi-", (), False), [])
    assert [path.name for path in tmp_path.iterdir()] == ["bad.cc"]


@needs_compiler
@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="needs QEMU: sudo apt-get install qemu-system-arm")
@pytest.mark.parametrize("name", cortex_m.PROCESSORS)
def test_the_board_starts_and_counts_the_same_each_time(name, tmp_path):
    processor = cortex_m.PROCESSORS[name]
    (tmp_path / "main.c").write_text(
        "#include <stdint.h>\n#include <stdio.h>\nextern uint64_t ticks(void);\n"
        "static uint64_t loop(uint32_t n) { uint64_t t = ticks();\n"
        '  __asm volatile("1: subs %0, %0, #1\\n bne 1b\\n" : "+r"(n) : : "cc"); return ticks() - t; }\n'
        "static const char text[] __attribute__((section(\".large\"))) = \"from afar\";\n"
        "int main(void) { uint64_t one = loop(1000000), long_ = loop(60000000);\n"
        '  printf("%s %.4f\\ndone\\n", text, (double)long_ / (double)one); return 0; }\n'
    )
    image = tmp_path / "image.elf"
    link = ["arm-none-eabi-gcc", *processor.flags, "-O2", "-specs=rdimon.specs", "-nostartfiles"]
    link += [f"-L{cortex_m.BOARD}", "-T", str(cortex_m.BOARD / processor.script), "-Wl,--no-warn-rwx-segments"]
    subprocess.run([*link, str(cortex_m.BOARD / "start.c"), str(tmp_path / "main.c"), "-o", str(image)], check=True)
    said = [cortex_m._emulated(image, processor.machine, 60) for _ in range(2)]
    # The long loop takes 24 million ticks, more than the 24 bits of the timer hold.
    assert said[0] == said[1] and said[0].split()[:2] == ["from", "afar"]
    assert float(said[0].split()[2]) == pytest.approx(60, rel=0.002)


@needs_compiler
@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="needs QEMU: sudo apt-get install qemu-system-arm")
def test_a_fault_is_a_reason(tmp_path):
    processor = cortex_m.PROCESSORS["cortex-m3"]
    (tmp_path / "main.c").write_text("int main(void) { *(volatile int*)0xF0000000 = 1; return 0; }")
    image = tmp_path / "image.elf"
    link = ["arm-none-eabi-gcc", *processor.flags, "-specs=rdimon.specs", "-nostartfiles", f"-L{cortex_m.BOARD}"]
    link += ["-T", str(cortex_m.BOARD / processor.script), "-Wl,--no-warn-rwx-segments"]
    subprocess.run([*link, str(cortex_m.BOARD / "start.c"), str(tmp_path / "main.c"), "-o", str(image)], check=True)
    with pytest.raises(ExportError, match="fault: the processor took an exception"):
        cortex_m._emulated(image, processor.machine, 60)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TFLM"), reason="needs a checkout of tflite-micro in the variable TFLM")
def test_a_file_runs_bit_for_bit(shared):
    path = shared / "data" / "tflite" / "tflm_hello_world_int8.tflite"
    first, again = (benchmark(path, "cortex-m", tflm=os.environ["TFLM"], profile=True) for _ in range(2))
    assert first.status == "ok" and first.agreement.equal == 1.0 and first.median is None
    assert first.counts == again.counts and first.counts["instructions"] > 1000
    assert [row.unit for row in first.operations] == ["instructions"] * 3
    assert benchmark(dense(), "cortex-m", tflm=os.environ["TFLM"]).agreement.largest < 1e-5
