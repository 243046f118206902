"""A description as tables."""

from typing import TYPE_CHECKING, Any

from tflite_export.rendering import amount, render, table

if TYPE_CHECKING:
    from tflite_export.description import Description, TensorRow


def listing(d: "Description", *, tensors: bool, gzip_bytes: int | None) -> str:
    """Text of the tables: totals, signatures, operations, kernels and, when asked for, every tensor."""
    parts = [_summary(d, gzip_bytes), _calls(d), _operations(d), _kernels(d)]
    if tensors:
        parts.append(_tensors(d))
    return render(*(line for part in parts if part is not None for line in (part, "")))


def _short(name: str, width: int = 60) -> str:
    """The first of the names that the converter joined with ";", cut to `width`."""
    first = name.split(";")[0]
    return first if len(first) <= width else "..." + first[3 - width :]


def _grid(row: "TensorRow") -> str:
    if not row.scales:
        return row.scheme
    if len(row.scales) > 1:
        return f"{len(row.scales)} scales on axis {row.axis}"
    return f"{row.scales[0]:.6g} * (q - {row.zero_points[0]})" if row.zero_points[0] else f"{row.scales[0]:.6g} * q"


def _summary(d: "Description", gzip_bytes: int | None) -> Any:
    constants = sum(d.bytes_by_tensor.values())
    rows = [
        ("bytes", f"{d.size:,} ({constants:,} in constants, {d.size - constants:,} around them)"),
        ("after gzip", f"{gzip_bytes:,}" if gzip_bytes is not None else ""),
        ("multiply-accumulates", f"{d.macs():,}"),
        ("zeros in kernels", f"{100 * d.zeros():.2f} %" if d.kernels else ""),
        ("float operations", f"{len(d.float_operations())} of {len(d.operations)}"),
        ("metadata", ", ".join(f"{name} ({size:,} bytes)" for name, size in d.metadata.items())),
        ("description", d.description),
    ]
    return table(d.name, ("", "value"), [row for row in rows if row[1]])


def _calls(d: "Description") -> Any:
    rows = []
    for signature in d.signatures:
        for side, tensors in (("input", signature.inputs), ("output", signature.outputs)):
            rows += [(signature.key, side, name, list(t.shape), t.type, _grid(t)) for name, t in tensors.items()]
    return table("Signatures", ("signature", "", "name", "shape", "type", "real value"), rows)


def _operations(d: "Description") -> Any:
    one = len({row.subgraph for row in d.operations}) <= 1
    rows = [
        (
            row.index if one else f"{row.subgraph}.{row.index}",
            row.kind if row.version == 1 else f"{row.kind} v{row.version}",
            row.types,
            list(row.shape),
            "" if row.activation == "NONE" else row.activation,
            amount(row.macs),
            amount(row.bytes),
            _short(row.name),
        )
        for row in d.operations
    ]
    columns = ("", "operation", "types", "output", "fused", "MACs", "bytes", "name")
    return table("Operations", columns, rows, right=("MACs", "bytes"))


def _kernels(d: "Description") -> Any:
    if not d.kernels:
        return None
    rows = [
        (k.kind, list(k.shape), k.type, f"{k.bytes:,}", f"{100 * k.zeros:.1f} %", f"{k.distinct:,}", _short(k.name))
        for k in d.kernels
    ]
    columns = ("kernel of", "shape", "type", "bytes", "zeros", "distinct", "name")
    return table("Kernels", columns, rows, right=("bytes", "zeros", "distinct"))


def _tensors(d: "Description") -> Any:
    rows = [
        (
            f"{row.subgraph}.{row.index}",
            row.type,
            list(row.shape),
            _grid(row),
            "constant" if row.constant else "",
            amount(row.bytes),
            "" if row.zeros is None else f"{100 * row.zeros:.1f} %",
            "" if row.distinct is None else f"{row.distinct:,}",
            _short(row.name),
        )
        for row in d.tensors
    ]
    columns = ("", "type", "shape", "real value", "", "bytes", "zeros", "distinct", "name")
    return table("Tensors", columns, rows, right=("bytes", "zeros", "distinct"))
