import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tflite_export
from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export import ExportError
from tflite_export.graph import Quantization
from tflite_export.microcontroller import firmware
from tflite_export.resolver import CUSTOM, METHODS, methods_of, resolver_of

COMPILERS = {
    "c99": ["gcc", "-std=c99", "-pedantic"],
    "c11": ["gcc", "-std=c11", "-Wconversion"],
    "c++11": ["g++", "-x", "c++", "-std=c++11", "-pedantic"],
    "c++20": ["g++", "-x", "c++", "-std=c++20"],
    "cortex-m0": ["arm-none-eabi-gcc", "-mcpu=cortex-m0", "-mthumb", "-std=c11"],
    "cortex-m4": ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-std=c99"],
    "cortex-m55": ["arm-none-eabi-g++", "-x", "c++", "-mcpu=cortex-m55", "-mthumb", "-std=c++17"],
}
READER = """
#include <stdio.h>
#include "NAME.h"
int main(void) {
  static const int shape[] = PREFIX_INPUT0_SHAPE;
  int i;
  fwrite(NAME_model, 1, sizeof(NAME_model), stdout);
  fprintf(stderr, "%d %d %.9g %d %.9g %d %d %d %d %s\\n", (int)((uintptr_t)NAME_model % 16), PREFIX_MODEL_BYTES,
          (double)PREFIX_INPUT0_SCALE, PREFIX_INPUT0_ZERO_POINT, (double)PREFIX_OUTPUT0_SCALE,
          PREFIX_OUTPUT0_ZERO_POINT, PREFIX_INPUT0_VALUES, PREFIX_INPUTS, (int)sizeof(NAME_input0_t),
          PREFIX_INPUT0_NAME);
  for (i = 0; i < PREFIX_INPUT0_RANK; ++i) fprintf(stderr, "%d ", shape[i]);
  fprintf(stderr, "\\n");
  for (i = -300; i < 300; ++i) {
    NAME_input0_t integer = NAME_input0_integer((float)i * 0.37f);
    fprintf(stderr, "%d %.9g ", (int)integer, (double)NAME_input0_real(integer));
  }
  fprintf(stderr, "%d", (int)NAME_input0_integer(0.0f / ((float)PREFIX_INPUTS - 1.0f)));
  return 0;
}
"""


@pytest.fixture
def unmeasured(monkeypatch):
    """As on a machine without tflite-micro."""
    monkeypatch.setattr("tflite_export.microcontroller.is_measurable", lambda: False)


@pytest.fixture
def checkout() -> Path:
    """A checkout of tflite-micro with the headers that it downloads, named by the environment."""
    folder = os.environ.get("TFLITE_MICRO")
    if not folder:
        pytest.skip("TFLITE_MICRO names no checkout of tflite-micro")
    return Path(folder)


def compiled(compiler: str, folder: Path, source: str) -> None:
    command = COMPILERS[compiler]
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    strict = [*command, "-Wall", "-Wextra", "-Werror", "-c", source, "-o", f"{compiler}.o"]
    done = subprocess.run(strict, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("compiler", COMPILERS)
def test_array_and_header_compile_without_a_warning(compiler, unmeasured, tmp_path):
    content = file_of(
        [tensor((1, 2), "INT8", scale=0.5, zero=1, name='x*/ "y\\ ??/\n'), tensor((1, 2), "UINT8", scale=1.0, zero=7)],
        [op("QUANTIZE", (0,), (1,), schema.QuantizeOptionsT())], (0,), (1,))
    firmware(content, tmp_path, name="net")
    compiled(compiler, tmp_path, "net.c")


@pytest.mark.parametrize("compiler", [["gcc", "-std=c99"], ["g++", "-x", "c++"]], ids=["gcc", "g++"])
def test_compiled_array_and_constants_are_those_of_the_file(compiler, unmeasured, shared, tmp_path):
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"needs {compiler[0]}")
    path = shared / "data" / "tflite" / "aeq_conv_fc_mnist_srq_a8w8.tflite"
    firmware(path, tmp_path, name="Net_8")
    (tmp_path / "reader.c").write_text(READER.replace("NAME_INPUT", "Net_8_INPUT").replace("PREFIX", "NET_8").replace(
        "NAME_model", "Net_8_model").replace("NAME_input", "Net_8_input").replace('"NAME.h"', '"Net_8.h"'))
    subprocess.run([*compiler, "reader.c", "Net_8.c", "-o", "reader"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "reader"], capture_output=True, check=True)
    assert done.stdout == path.read_bytes()

    from ai_edge_litert.interpreter import Interpreter

    runtime = Interpreter(model_path=str(path))
    given, made = runtime.get_input_details()[0], runtime.get_output_details()[0]
    first, shape, integers = done.stderr.decode().splitlines()
    aligned, size, scale, zero, out_scale, out_zero, values, inputs, width, label = first.split()
    assert (int(aligned), int(size), int(inputs), int(width)) == (0, path.stat().st_size, 1, 1)
    assert (np.float32(scale), int(zero)) == given["quantization"]
    assert (np.float32(out_scale), int(out_zero)) == made["quantization"]
    assert list(map(int, shape.split())) == given["shape"].tolist() and int(values) == given["shape"].prod()
    assert label == next(iter(runtime.get_signature_list()["serving_default"]["inputs"]))
    *pairs, of_nan = integers.split()
    grid = Quantization(np.float32([scale]), np.array([int(zero)]))
    real = np.arange(-300, 300, dtype="float32") * np.float32(0.37)
    expected = grid.integers(real, np.dtype("int8"))
    assert np.array(pairs[0::2], "int32").tolist() == expected.tolist() and int(of_nan) == -128
    np.testing.assert_array_equal(np.array(pairs[1::2], "float32"), grid.real(expected))


def test_what_is_written_and_printed(tmp_path):
    pytest.importorskip("tflite_micro")
    content = file_of([tensor((1, 4096), "INT8", scale=0.5, zero=1, name="x"),
                       tensor((1, 4096), "INT8", scale=1.0, zero=-3, name="y")],
                      [op("ADD", (0, 0), (1,), schema.AddOptionsT())], (0,), (1,))  # fmt: skip
    result = tflite_export.firmware(content, tmp_path / "new" / "folder", name="tiny")
    assert [path.name for path in result.files] == ["tiny.h", "tiny.c", "tiny_resolver.h", "tiny_main.cc", "Makefile"]
    assert all(path.is_file() for path in result.files) and result.folder == tmp_path / "new" / "folder"
    assert result.resolver == ("AddAdd",)
    assert result.arena.head == 2 * 4096  # input and output live at once
    assert result.arena.total >= result.arena.head + result.arena.tail
    assert result.arena_bytes % 16 == 0 and result.arena.total <= result.arena_bytes < result.arena.total + 256
    header = (result.folder / "tiny.h").read_text()
    assert f"#define TINY_ARENA_BYTES {result.arena_bytes}\n" in header
    assert f"Measured: {result.arena.total} bytes" in header and "Margin: " in header
    assert result.ends == ("input0 'x': INT8 [1, 4096], scale 0.5, zero point 1",
                           "output0 'y': INT8 [1, 4096], scale 1.0, zero point -3")  # fmt: skip
    for text in ("AddAdd", "tiny_main.cc", str(result.arena), f"{result.arena_bytes:,} bytes", "scale 0.5"):
        assert text in str(result)


def test_a_resolver_has_each_operation_once(unmeasured, tmp_path, shared):
    result = firmware(shared / "data" / "tflite" / "tflm_micro_speech_quantized.tflite", tmp_path)
    assert result.resolver == ("AddDepthwiseConv2D", "AddFullyConnected", "AddReshape", "AddSoftmax")
    text = (tmp_path / "model_resolver.h").read_text()
    assert "tflite::MicroMutableOpResolver<4>;" in text
    assert re.findall(r"resolver\.(\w+)\(\)", text) == list(result.resolver)


def test_operations_of_every_subgraph_are_registered():
    graph = SimpleNamespace(operators=[SimpleNamespace(kind="WHILE", is_custom=False, outputs=(), index=0)], tensors=[])
    body = SimpleNamespace(operators=[SimpleNamespace(kind="ADD", is_custom=False, outputs=(), index=0),
                                      SimpleNamespace(kind="ethos-u", is_custom=True, outputs=(), index=1)], tensors=[])
    assert resolver_of(SimpleNamespace(subgraphs=(graph, body))) == ("AddAdd", "AddEthosU", "AddWhile")


def test_an_operation_without_a_kernel_is_named_and_nothing_written(tmp_path):
    tensors = [tensor((1, 2), name="x"), tensor((1, 2), name="angle"), tensor((1, 2), name="own")]
    content = file_of(tensors, [op("ATAN2", (0, 0), (1,)), op("mine", (1,), (2,))], (0,), (2,))
    expected = r"no kernel for ATAN2 \(for 'angle'\); custom operation 'mine' \(for 'own'\)"
    with pytest.raises(ExportError, match=expected):
        firmware(content, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_the_interpreter_refuses_names_the_operation(tmp_path):
    pytest.importorskip("tflite_micro")
    tensors = [tensor((1, 2), name="x"), tensor((2, 2), "INT8", data=np.int8([[1, 2], [3, 4]]), scale=0.5, name="w"),
               tensor((1, 2), name="hybrid")]
    content = file_of(tensors, [op("FULLY_CONNECTED", (0, 1, -1), (2,), schema.FullyConnectedOptionsT())], (0,), (2,))
    with pytest.raises(ExportError, match=r"operation 0, FULLY_CONNECTED 'hybrid', failed to prepare: .*not supported"):
        firmware(content, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_the_interpreter_a_note_tells_how_to_get_it(unmeasured, tmp_path):
    result = firmware(dense(), tmp_path, name="net")
    assert result.arena is None and result.arena_bytes is None
    assert any("pip install 'tfcompress[micro]'" in note for note in result.notes)
    assert "#define NET_ARENA_BYTES" not in (tmp_path / "net.h").read_text()
    assert '#error "NET_ARENA_BYTES is not known' in (tmp_path / "net_main.cc").read_text()


@pytest.mark.parametrize("name", ["", "1st", "a b", "é", "int", "nullptr", "a__b", "_x", "a-b", "x" * 42, "tflite", 3])
def test_names_that_c_does_not_take(name, tmp_path):
    with pytest.raises(ValueError, match=r"`name` must be a C identifier .* Received: name="):
        firmware(dense(), tmp_path, name=name)


def test_wrong_arguments(unmeasured, tmp_path):
    with pytest.raises(ValueError, match=r"`tflm` must be a checkout of tflite-micro.*git clone"):
        firmware(dense(), tmp_path, tflm=tmp_path)
    with pytest.raises(ValueError, match="not a TFLite file"):
        firmware(b"nothing", tmp_path)
    (tmp_path / "taken").write_text("")
    with pytest.raises(ExportError, match="`out` must name a folder"):
        firmware(dense(), tmp_path / "taken")


def test_types_without_a_c_type_are_refused(unmeasured, tmp_path):
    tensors = [tensor((1,), "STRING", name="words"), tensor((1,), "STRING")]
    content = file_of(tensors, [op("RESHAPE", (0,), (1,))], (0,), (1,))
    with pytest.raises(ExportError, match="input 'words' is of type STRING"):
        firmware(content, tmp_path)


def fake_checkout(folder: Path, methods: str) -> Path:
    header = folder / "tensorflow" / "lite" / "micro" / "micro_mutable_op_resolver.h"
    header.parent.mkdir(parents=True)
    header.write_text(methods)
    return folder


def test_a_checkout_is_asked_for_its_methods(unmeasured, tmp_path):
    methods = """
      TfLiteStatus AddAdd2(const TFLMRegistration& r = Register_ADD()) {
        return AddBuiltin(BuiltinOperator_ADD, r, ParseAdd);
      }
      TfLiteStatus AddOwn() { return AddCustom("mine", Register_OWN()); }
    """
    folder = fake_checkout(tmp_path / "tflm", methods)
    found = methods_of(folder)
    assert found.builtin == {"ADD": "AddAdd2"} and found.custom == {"mine": "AddOwn", "ethos-u": "AddEthosU"}
    add = file_of([tensor((1, 2)), tensor((1, 2))], [op("ADD", (0, 0), (1,), schema.AddOptionsT())], (0,), (1,))
    result = firmware(add, tmp_path / "out", tflm=folder)
    assert result.resolver == ("AddAdd2",)
    assert f"TFLM ?= {folder.as_posix()}\n" in (tmp_path / "out" / "Makefile").read_text()
    assert any("third_party_downloads" in note for note in result.notes)
    with pytest.raises(ExportError, match=r"the checkout .*tflm' has no kernel for FULLY_CONNECTED"):
        firmware(dense(), tmp_path / "out", tflm=folder)
    with pytest.raises(ValueError, match="without spaces"):
        firmware(add, tmp_path / "out", tflm=fake_checkout(tmp_path / "a b", methods))


def test_resource_variables_are_announced(unmeasured, tmp_path):
    handles = [schema.VarHandleOptionsT(sharedName=name) for name in ("a", "b", "a")]
    tensors = [tensor((1, 2)), *[tensor((), "RESOURCE") for _ in handles], tensor((1, 2))]
    operators = [op("VAR_HANDLE", (), (i + 1,), options) for i, options in enumerate(handles)]
    content = file_of(tensors, [*operators, op("READ_VARIABLE", (1,), (4,))], (0,), (4,))
    firmware(content, tmp_path)
    assert "MicroResourceVariables::Create(allocator, 2)" in (tmp_path / "model_main.cc").read_text()


def test_the_makefile_explains_itself(unmeasured, tmp_path):
    if shutil.which("make") is None:
        pytest.skip("needs make")
    firmware(dense(), tmp_path, name="net")
    done = subprocess.run(["make", "TFLM=nowhere"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode and "TFLM must name a checkout of tflite-micro" in done.stderr


def test_methods_are_those_of_a_checkout(checkout):
    found = methods_of(checkout)
    assert METHODS.items() <= found.builtin.items() and CUSTOM.items() <= found.custom.items()


@pytest.mark.slow
@pytest.mark.parametrize("make", [[], ["CC=arm-none-eabi-gcc", "CXX=arm-none-eabi-g++", "CPU=-mcpu=cortex-m4 -mthumb"]],
                         ids=["host", "cortex-m4"])
def test_the_example_compiles_against_a_checkout(checkout, make, tmp_path, unmeasured):
    if make and shutil.which("arm-none-eabi-g++") is None:
        pytest.skip("needs arm-none-eabi-g++")
    firmware(integer_dense(), tmp_path, tflm=checkout)
    flags = [f"CPU={make[-1][4:] if make else ''} -DMODEL_ARENA_BYTES=4096 -Werror"]
    command = ["make", "model.o", "model_main.o", *make[:-1], *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
