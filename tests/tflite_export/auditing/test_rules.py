"""Rules against single operations whose verdict the runtimes' sources and documents give."""

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.tflite_export.handmade import dense, file_of, op, packed, tensor, unpacked
from tflite_export.auditing import cpu
from tflite_export.auditing.verdict import TARGETS, audit
from tflite_export.flatbuffer import KINDS

GRID = {"scale": 0.1, "zero": 0}
RELU6 = schema.ActivationFunctionType.RELU6


def conv(kind="INT8", weights="INT8", scale=0.1, bias=True, options=None, name="CONV_2D"):
    """One convolution of 3 x 3 over 8 x 8 x 4, six channels; float types have no grid."""
    def grid(type, scale=0.1):
        return {} if type == "FLOAT32" else {"scale": scale, "zero": np.zeros(np.size(scale), int)}
    values = np.zeros((6, 3, 3, 4), {"FLOAT32": "float32"}.get(weights, "int8"))
    if weights == "INT4":
        values = np.zeros(108, "int8")
    tensors = [tensor((1, 8, 8, 4), kind, name="x", **grid(kind)),
               tensor((6, 3, 3, 4), weights, values, name="w", **grid(weights, scale)),
               tensor((6,), "FLOAT32" if kind == "FLOAT32" else "INT32", np.zeros(6, "float32"), name="b",
                      **grid(kind, np.multiply(scale, 0.1))),
               tensor((1, 6, 6, 6), kind, name="y", **grid(kind))]
    made = options or schema.Conv2DOptionsT(strideH=1, strideW=1, padding=1, dilationHFactor=1, dilationWFactor=1)
    return file_of(tensors, [op(name, (0, 1, 2 if bias else -1), (3,), made)], (0,), (3,))


def verdict(content, target):
    """(verdict, reason) of the only operation, by rules."""
    (row,) = audit(content, target, tools=False).rows
    return row.verdict, row.reason


def single(kind, type, shape=(1, 8), out=None, options=None, grid=True):
    extra = GRID if grid and type not in ("FLOAT32", "INT32", "BOOL") else {}
    tensors = [tensor(shape, type, name="x", **extra), tensor(out or shape, type, name="y", **extra)]
    return file_of(tensors, [op(kind, (0,), (1,), options)], (0,), (1,))


@pytest.mark.parametrize("target", ["xnnpack", "gpu", "nnapi", "tflm", "ethos-u", "web", "edgetpu"])
def test_an_integer_convolution_runs_where_integers_do(target):
    assert verdict(conv(), target) == ("runs", "")


@pytest.mark.parametrize("target", ["xnnpack", "gpu", "nnapi", "tflm", "coreml", "web"])
def test_a_float_convolution_runs_where_floats_do(target):
    assert verdict(conv("FLOAT32", "FLOAT32"), target) == ("runs", "")


def test_an_integer_bias_without_a_scale_stays_outside_xnnpack():
    model = unpacked(conv())
    model.subgraphs[0].tensors[2].quantization = None
    found, reason = verdict(packed(model), "xnnpack")
    assert found == "falls back" and "bias" in reason


@pytest.mark.parametrize(
    ("target", "expected"),
    [("tflm", "refused"), ("coreml", "falls back"), ("ethos-u", "refused"), ("xnnpack", "runs")],
)
def test_dynamic_range_convolutions(target, expected):
    found, reason = verdict(conv("FLOAT32", "INT8"), target)
    assert found == expected
    if target == "tflm":
        assert "dynamic-range" in reason


def test_dynamic_range_depthwise_convolutions_stay_outside_xnnpack():
    options = schema.DepthwiseConv2DOptionsT(strideH=1, strideW=1, depthMultiplier=1, dilationHFactor=1,
                                             dilationWFactor=1)
    found, reason = verdict(conv("FLOAT32", "INT8", options=options, name="DEPTHWISE_CONV_2D"), "xnnpack")
    assert found == "falls back" and "dynamic-range" in reason


def test_four_bits():
    """XNNPACK leaves INT4 convolutions out; tflite-micro has them, and refuses INT4 dense layers per channel."""
    assert verdict(conv(weights="INT4"), "xnnpack")[0] == "falls back"
    assert verdict(conv(weights="INT4"), "tflm")[0] == "runs"
    assert verdict(conv(weights="INT4"), "ethos-u")[0] == "falls back"
    for scale, tflm in ((0.1, "runs"), ([0.1, 0.2], "refused")):
        tensors = [tensor((1, 4), "INT8", **GRID),
                   tensor((2, 4), "INT4", np.zeros(4, "int8"), scale=scale, zero=np.zeros(np.size(scale), int)),
                   tensor((1, 2), "INT8", **GRID)]
        layer = op("FULLY_CONNECTED", (0, 1, -1), (2,), schema.FullyConnectedOptionsT())
        dense4 = file_of(tensors, [layer], (0,), (2,))
        assert verdict(dense4, "tflm")[0] == tflm
        assert verdict(dense4, "xnnpack")[0] == "runs"


def test_unsigned_files_of_the_old_converter():
    content = conv("UINT8", "UINT8")
    assert verdict(content, "tflm")[0] == "refused" and "UINT8" in verdict(content, "tflm")[1]
    for target in ("xnnpack", "gpu", "nnapi", "ethos-u", "edgetpu"):
        assert verdict(content, target)[0] == "runs"


@pytest.mark.parametrize(
    ("target", "content", "expected"),
    [
        ("xnnpack", single("SOFTMAX", "INT8", options=schema.SoftmaxOptionsT(beta=1.0)), "falls back"),
        ("tflm", single("SOFTMAX", "INT8", options=schema.SoftmaxOptionsT(beta=1.0)), "runs"),
        ("gpu", single("SOFTMAX", "FLOAT32", options=schema.SoftmaxOptionsT(beta=2.0)), "falls back"),
        ("coreml", single("SOFTMAX", "FLOAT32", options=schema.SoftmaxOptionsT(beta=2.0)), "falls back"),
        ("coreml", single("SOFTMAX", "FLOAT32", options=schema.SoftmaxOptionsT(beta=1.0)), "runs"),
        ("xnnpack", conv("FLOAT32", "FLOAT32", bias=False), "falls back"),
        ("xnnpack", single("HARD_SWISH", "INT8"), "falls back"),
        ("nnapi", single("HARD_SWISH", "INT8"), "runs"),
        ("nnapi", single("ELU", "INT8"), "falls back"),
        ("ethos-u", single("ELU", "INT8"), "runs"),
        ("ethos-u", single("ELU", "INT16"), "refused"),
        ("tflm", single("LOG", "INT8"), "refused"),
        ("tflm", single("RELU", "INT8", grid=False), "refused"),
        ("gpu", single("RELU", "FLOAT32", shape=(1, 2, 2, 2, 2)), "falls back"),
        ("gpu", single("RELU", "INT32"), "falls back"),
        ("edgetpu", single("RELU", "INT8", shape=(2, 2, 2, 2)), "falls back"),
        ("edgetpu", single("SOFTMAX", "INT8", shape=(4, 8), options=schema.SoftmaxOptionsT(beta=1.0)), "falls back"),
        ("coreml", single("AVERAGE_POOL_2D", "FLOAT32", (1, 4, 4, 1),
                          options=schema.Pool2DOptionsT(fusedActivationFunction=RELU6)), "falls back"),
        ("edgetpu", single("MAX_POOL_2D", "INT8", (1, 4, 4, 1),
                           options=schema.Pool2DOptionsT(fusedActivationFunction=RELU6)), "falls back"),
        ("xnnpack", single("AVERAGE_POOL_2D", "INT8", (1, 4, 4, 1), options=schema.Pool2DOptionsT()), "falls back"),
        ("ethos-u", single("AVERAGE_POOL_2D", "INT8", (1, 16, 16, 1),
                           options=schema.Pool2DOptionsT(filterHeight=9, filterWidth=9, strideH=1, strideW=1)),
         "falls back"),
        ("ethos-u", single("AVERAGE_POOL_2D", "INT8", (1, 16, 16, 1),
                           options=schema.Pool2DOptionsT(filterHeight=9, filterWidth=9, strideH=1, strideW=1,
                                                         padding=1)), "runs"),
        ("xnnpack", single("MAX_POOL_2D", "FLOAT32", (1, 4, 4, 1),
                           options=schema.Pool2DOptionsT(filterHeight=1, filterWidth=1, strideH=2, strideW=2)),
         "falls back"),
        ("gpu", single("SPACE_TO_DEPTH", "FLOAT32", (1, 4, 4, 1), options=schema.SpaceToDepthOptionsT(blockSize=1)),
         "falls back"),
    ],
)  # fmt: skip
def test_single_operations(target, content, expected):
    found, reason = verdict(content, target)
    assert found == expected
    assert bool(reason) is (expected != "runs")


def test_a_depthwise_stride_of_four_is_too_wide_for_ethos_u_and_a_valid_convolution_is_not():
    wide = {"strideH": 4, "strideW": 4, "padding": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    assert verdict(conv(options=schema.Conv2DOptionsT(**wide)), "ethos-u")[0] == "runs"
    options = schema.DepthwiseConv2DOptionsT(**wide)
    assert verdict(conv(options=options, name="DEPTHWISE_CONV_2D"), "ethos-u")[0] == "falls back"


def test_a_mean_runs_on_core_ml_over_height_and_width_with_kept_axes_only():
    for axes, keep, expected in (([1, 2], True, "runs"), ([1, 2], False, "falls back"), ([3], True, "falls back")):
        tensors = [tensor((1, 4, 4, 2)), tensor((len(axes),), "INT32", np.int32(axes)), tensor((1, 1, 1, 2))]
        options = schema.ReducerOptionsT(keepDims=keep)
        assert verdict(file_of(tensors, [op("MEAN", (0, 1), (2,), options)], (0,), (2,)), "coreml")[0] == expected


def test_custom_operations_run_where_they_are_known():
    def content(name):
        model = unpacked(file_of([tensor((1, 2), name="x"), tensor((1, 2), name="y")], [op("custom", (0,), (1,))],
                                 (0,), (1,)))
        model.operatorCodes[0].customCode = name.encode()
        return packed(model)

    assert verdict(content("TFLM_DECODE"), "tflm")[0] == "runs"
    assert verdict(content("TFLM_DECODE"), "xnnpack")[0] == "refused"
    assert verdict(content("TFLite_Detection_PostProcess"), "gpu")[0] == "falls back"
    assert verdict(content("edgetpu-custom-op"), "edgetpu")[0] == "runs"
    found = audit(content("FlexErf"), "xnnpack", tools=False)
    assert not found.runs and "Flex delegate" in found.rows[0].way_out


def half() -> bytes:
    """y = x W^T with W in float16 behind a DEQUANTIZE."""
    tensors = [tensor((1, 2), name="x"), tensor((3, 2), "FLOAT16", np.ones((3, 2), "float16"), name="w16"),
               tensor((3, 2), name="w"), tensor((1, 3), name="y")]
    chain = [op("DEQUANTIZE", (1,), (2,)), op("FULLY_CONNECTED", (0, 2, -1), (3,), schema.FullyConnectedOptionsT())]
    return file_of(tensors, chain, (0,), (3,))


def test_float16_weights_are_unpacked_everywhere_but_on_microcontrollers():
    for target in ("xnnpack", "gpu", "nnapi", "coreml", "web"):
        assert audit(half(), target, tools=False).fully_accelerated, target
    for target in ("tflm", "ethos-u"):
        found = audit(half(), target, tools=False)
        assert not found.runs and found.rows[0].verdict == "refused"
    assert any("float16" in f.text for f in audit(half(), "tflm", tools=False).findings)


def test_the_web_refuses_int8_inputs_and_takes_integers_inside():
    found = audit(conv(), "web", tools=False)
    assert found.rows[0].verdict == "runs" and not found.runs
    (stop,) = [f for f in found.findings if f.stops]
    assert "'x (INT8)', 'y (INT8)'" in stop.text and "float32" in stop.way_out


def test_sizes_known_at_run_time_stop_the_edge_tpu_and_are_told_elsewhere():
    model = unpacked(conv())
    model.subgraphs[0].tensors[0].shapeSignature = [-1, -1, 8, 4]
    content = packed(model)
    assert not audit(content, "edgetpu", tools=False).runs
    for target in ("xnnpack", "gpu", "nnapi", "tflm", "coreml"):
        found = audit(content, target, tools=False)
        assert found.runs or target == "coreml"
        assert any("run time" in f.text and "'x'" in f.text for f in found.findings), target
    assert not audit(content, "ethos-u", tools=False).fully_accelerated
    model.subgraphs[0].tensors[0].shapeSignature = [-1, 8, 8, 4]  # the batch alone stops the Edge TPU only
    assert not any("run time" in f.text for f in audit(packed(model), "xnnpack", tools=False).findings)
    assert not audit(packed(model), "edgetpu", tools=False).runs


def test_sparse_weights_are_refused_on_microcontrollers():
    model = unpacked(dense())
    model.subgraphs[0].tensors[1].sparsity = schema.SparsityParametersT(traversalOrder=[0, 1], dimMetadata=[])
    found = audit(packed(model), "tflm", tools=False)
    assert not found.runs and "sparse" in found.rows[0].reason
    assert any("sparse" in f.text for f in audit(packed(model), "ethos-u", tools=False).findings)


def test_several_signatures_are_told_of():
    model = unpacked(file_of([tensor((1, 2), name="x"), tensor((1, 2), name="y")], [op("RELU", (0,), (1,))], (0,), (1,),
                             (("x",), ("y",))))
    second = schema.SignatureDefT(model.signatureDefs[0].inputs, model.signatureDefs[0].outputs, "second", 0)
    model.signatureDefs.append(second)
    assert any("second" in f.text for f in audit(packed(model), "tflm", tools=False).findings)


def test_every_kind_of_every_table_is_one_of_the_schema():
    """A slip of the pen in a table would make an operation that runs look as if it did not."""
    import importlib

    for home, _ in TARGETS.values():
        rules = importlib.import_module(f"tflite_export.auditing.{home}").RULES
        assert set(rules.operations) <= set(KINDS.values()), home
    assert {"CONV_2D", "STABLEHLO_ADD", "TOPK_V2"} <= set(cpu.RULES.operations)
    assert not {"CUSTOM", "DELEGATE", "STABLEHLO_SORT"} & set(cpu.RULES.operations)
