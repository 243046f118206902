"""What LiteRT.js runs in a browser or under Node: XNNPACK compiled to WebAssembly, and LiteRT's own kernels."""

from tflite_export.auditing import cpu, findings, xnnpack
from tflite_export.auditing.rules import Finding, Rules, uses
from tflite_export.graph import Model


def _keeps_mean_of_sparse(model: Model) -> Finding | None:
    """A pooled mean that keeps its axes behind sparse convolutions makes a graph that is not prepared."""
    sparse = any(tensor.is_sparse for graph in model.subgraphs for tensor in graph.tensors)
    kept = [use.op.kind for use in uses(model) if use.op.kind == "MEAN" and use.option("keepDims", False)]
    if not sparse or not kept:
        return None
    return Finding(
        "a mean that keeps its axes behind sparse layers: LiteRT.js 2.5.3 prepares no such graph, returns zeros",
        "use GlobalAveragePooling2D() and Dense as the head",
        stops=True,
    )


RULES = Rules(
    target="web",
    title="XNNPACK in WebAssembly",
    source=f"LiteRT, litert/js/packages/core/src/datatypes.ts; {xnnpack.SOURCE}",
    operations=xnnpack.OPERATIONS,
    custom=xnnpack.CUSTOM,
    rest=cpu.RULES,
    unpacks=True,
    looks=(
        findings.boundary_types(
            ("FLOAT32", "INT32", "UINT8"),
            "LiteRT.js takes float32, int32 and uint8 inputs and outputs, no others",
            'export with inputs="float32", outputs="float32": layers inside stay integers',
            stops=True,
        ),
        _keeps_mean_of_sparse,
        findings.dynamic("sizes known only at run time", "fix the sizes"),
        findings.half_weights("float16 weights halve the download and are unpacked to float32 when the file is opened"),
        findings.sparse("stored sparse: WebAssembly has sparse kernels; check outputs there, not on x86"),
    ),
)
