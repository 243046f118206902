"""A sparse file as it is made: what will run sparse, and whether a runtime that runs it so computes the same."""

from tflite_export.draft import Draft, layer_of
from tflite_export.errors import ExportError
from tflite_export.exported import ReportRow
from tflite_export.flatbuffer import read
from tflite_export.sparse import kernels

# Largest difference to the reference kernels that rounding explains, for outputs of size 1.
TOLERANCE = 1e-4
_UNVERIFIED = "outputs were not compared on a runtime that runs the sparse kernels, and that of x86 does not"


def sparse_rows(draft: Draft) -> list[ReportRow]:
    """For each 1x1 convolution whether it will run sparse, and why not."""
    found = kernels(read(draft.content()).subgraphs[0])
    return [ReportRow(layer_of(one.name.split(";")[-1]) or one.name, "sparse", str(one)) for one in found]


def sparse_notes(content: bytes) -> list[str]:
    """What the user should know of a sparse file as a whole; it is run in WebAssembly where that is installed.

    Raises:
        ExportError: the runtime does not run it, or computes something else.
    """
    graphs = read(content).subgraphs
    running = [one for graph in graphs for one in kernels(graph) if not one.reason]
    if not any(tensor.is_sparse for graph in graphs for tensor in graph.tensors):
        return ["no kernel has zeros enough to be stored without them"]
    if not running:
        return ["no convolution of this file will run sparse: it is smaller, not faster"]
    return [verified(content)]


def verified(content: bytes) -> str:
    """Compares a file on LiteRT.js under Node, which has the sparse kernels, with the reference kernels.

    Returns:
        A sentence that says so, or why it was not done.

    Raises:
        ExportError: the runtime does not run it, or computes something else.
    """
    from tflite_export.bench import web
    from tflite_export.bench.job import Job, Named

    lacks = web.missing({})
    if lacks:
        return f"{_UNVERIFIED}: {lacks[0]}"
    result = web.run(Job((Named("sparse", content),), runs=1))[0]
    if result.status == "unavailable":
        return f"{_UNVERIFIED}: {result.reason}"
    if result.status != "ok":
        raise ExportError(f"{result.runtime} {result.version} does not run the file sparse: {result.reason}. {_ADVICE}")
    if result.agreement is None:
        return f"{_UNVERIFIED}: {'; '.join(result.warnings)}"
    largest = result.agreement.largest
    if not (largest <= TOLERANCE or largest <= TOLERANCE * _size(content)):
        raise ExportError(
            f"{result.runtime} {result.version} computes something else sparse than dense: outputs differ by up to "
            f"{largest:.3g}. {_ADVICE}"
        )
    return (
        f"outputs on the sparse kernels of {result.runtime} {result.version} are those of the reference kernels within "
        f"{largest:.1g}"
    )


def _size(content: bytes) -> float:
    """The largest output on the same inputs, at least 1."""
    from tflite_export.bench.check import run_outputs
    from tflite_export.bench.inputs import feeds

    outputs = run_outputs(content, feeds(content).head(1), kernels="xnnpack", timeout=60.0)
    return max([1.0, *(float(abs(values).max()) for values in outputs.values() if values.size)])


_ADVICE = "Use GlobalAveragePooling2D without keepdims and a Dense head, or export without `sparse`"
