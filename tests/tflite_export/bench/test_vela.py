import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tflite_export.handmade import dense, file_of, integer_dense, op, tensor
from tflite_export import ExportError
from tflite_export.bench import ethos_u, vela
from tflite_export.bench.harness import benchmark
from tflite_export.bench.job import Job, Named
from tflite_export.flatbuffer import read

# Vela 5.2.0 of the file below, as it printed it.
SAID = """
Warning (supported operators) operator: TANH, ofm: 't0.3'
Reason: Operation has tensor with unsupported DataType Float32 (t0.2)
Feature-map dataTypes must be one of {"INT16", "INT32", "INT64", "INT8", "UINT8"}

Warning (supported operators) operator: DEQUANTIZE, ofm: 't0.2'
Reason: Unsupported opType

Network summary for model
CPU operators = 2 (66.7%)
   CPU: Passthrough = t0.2 (outputs [1, 1, 1, 4])
   CPU: Passthrough = t0.3 (outputs [1, 1, 1, 4])
NPU operators = 1 (33.3%)
   NPU: Add = t0.1 (outputs [1, 1, 1, 4])
"""


def mixed() -> bytes:
    """ADD on int8, which the NPU takes, then DEQUANTIZE and TANH, which it does not; every name is the same."""
    tensors = [tensor((1, 4), "INT8", scale=0.5, zero=3, name="same") for _ in range(2)]
    tensors += [tensor((1, 4), name="same"), tensor((1, 4), name="same")]
    operators = [op("ADD", (0, 0), (1,), schema.AddOptionsT()), op("DEQUANTIZE", (1,), (2,)), op("TANH", (2,), (3,))]
    return file_of(tensors, operators, (0,), (3,))


def test_reasons_find_their_operation_by_place_not_by_name():
    found = vela.left_on_cpu(read(mixed()), SAID)
    assert [(one.operation, one.kind) for one in found] == [(1, "DEQUANTIZE"), (2, "TANH")]
    assert found[0].reason == "Unsupported opType"
    assert found[1].reason.startswith("Operation has tensor with unsupported DataType Float32 Feature-map")


def test_a_warning_alone_is_enough_and_a_fused_activation_is_its_operation():
    text = "Warning (supported operators) operator: RELU, ofm: 't0.1_act'\nReason: no such thing\n\n"
    (one,) = vela.left_on_cpu(read(mixed()), text)
    assert (one.operation, one.kind, one.reason) == (0, "ADD", "no such thing")


def test_a_name_of_nothing_in_the_file_is_kept():
    (one,) = vela.left_on_cpu(read(mixed()), "   CPU: Passthrough = t9.9 (outputs [1])\n")
    assert (one.operation, one.name, one.reason) == (-1, "t9.9", "Vela gives no reason")


def test_layers_of_one_operation_are_summed():
    rows = ("Add,NPU,6,t0.1", "Add,NPU,4,t0.1_act", "Lstm,NPU,5,gate", "Lstm,NPU,7,cell")
    layers = vela._layers(read(mixed()), "\n".join(["Original Operator,Target,Op Cycles,Name", *rows]))
    assert [(one.kind, one.name, one.cycles) for one in layers] == [("ADD", "same", 10.0), ("Lstm", "", 12.0)]


def test_figures_that_are_no_numbers_are_left_out():
    assert vela._summary("a,b,c\nname,nan,2.5\n") == {"c": 2.5}


def test_accelerators_are_checked():
    with pytest.raises(ValueError, match=r"u85-2048.*Received: 'u99-1'"):
        vela.compiled(dense(), "u99-1")
    assert ethos_u.ACCELERATORS[0] == "u55-128" and len(ethos_u.ACCELERATORS) == 11


def test_a_missing_vela_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (lack,) = ethos_u.missing({})
    assert lack.command == "pip install 'tfcompress[ethos-u]'"


class TestWithVela:
    @pytest.fixture(autouse=True)
    def needs_vela(self):
        pytest.importorskip("ethosu.vela")

    def test_a_whole_integer_file_has_an_estimated_time(self):
        result = benchmark(integer_dense(), "ethos-u", profile=True)
        assert result.status == "ok" and result.estimate and result.runs == 0
        assert result.delegate == "Ethos-U (1 of 1 operations)" and result.counts["operations_on_cpu"] == 0
        # 500 MHz is the clock of the default system: time and cycles say the same.
        assert result.median == pytest.approx(1e3 * result.counts["cycles"] / 500e6, rel=0.01)
        assert [(row.kind, row.unit) for row in result.operations] == [("FULLY_CONNECTED", "cycles")]
        assert "an estimate of Vela" in result.warnings[0]

    def test_a_part_on_the_cpu_leaves_no_time_of_the_whole(self):
        result = benchmark(mixed(), "ethos-u")
        assert result.status == "ok" and result.median is None and result.throughput is None
        assert result.counts["operations_on_cpu"] == 2 and result.counts["cycles"] > 0
        assert any("DEQUANTIZE 'same': Unsupported opType" in line for line in result.warnings)

    def test_a_crash_and_a_traceback_are_reasons(self, shared):
        folder = shared / "data" / "tflite"
        crash, broken = (
            ethos_u.run(Job((Named("file", (folder / name).read_bytes()),)))[0]
            for name in ("litert_qwen_fc_blockwise_quantized.tflite", "coral_invalid_model_invoking_error.tflite")
        )
        assert crash.status == broken.status == "failed"
        assert crash.reason == "Vela crashed on the file (SIGFPE)"
        assert broken.reason.startswith("Vela does not take the file: IndexError")

    def test_a_wrong_system_is_said_in_velas_words(self):
        with pytest.raises(ExportError, match=r"--system-config=Nope: Section System_Config\.Nope not found"):
            vela.compiled(integer_dense(), system="Nope")
