"""The flatbuffer of TFLite metadata, packed and unpacked by a table of its fields.

    byte 0..3    offset of the root table (ModelMetadata)
    byte 4..7    the identifier, b"M001"

Source: metadata_schema.fbs, version 1.5.0 (TensorFlow Lite Support and MediaPipe Tasks).
"""

import struct
from collections.abc import Mapping
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

IDENTIFIER = b"M001"
ROOT = "ModelMetadata"

# Type of a field: "string", a number of _NUMBERS, "[number]", "[string]", the name of a table, "[Table]" or a union as
# "union Name". The order of a table's fields is their number; a union takes two, its type and its value.
TABLES: dict[str, dict[str, str]] = {
    "ModelMetadata": {
        "name": "string",
        "description": "string",
        "version": "string",
        "subgraph_metadata": "[SubGraphMetadata]",
        "author": "string",
        "license": "string",
        "associated_files": "[AssociatedFile]",
        "min_parser_version": "string",
    },
    "SubGraphMetadata": {
        "name": "string",
        "description": "string",
        "input_tensor_metadata": "[TensorMetadata]",
        "output_tensor_metadata": "[TensorMetadata]",
        "associated_files": "[AssociatedFile]",
    },
    "TensorMetadata": {
        "name": "string",
        "description": "string",
        "dimension_names": "[string]",
        "content": "Content",
        "process_units": "[ProcessUnit]",
        "stats": "Stats",
        "associated_files": "[AssociatedFile]",
    },
    "AssociatedFile": {
        "name": "string",
        "description": "string",
        "type": "byte",
        "locale": "string",
        "version": "string",
    },
    "Content": {"content_properties": "union ContentProperties", "range": "ValueRange"},
    "ValueRange": {"min": "int", "max": "int"},
    "FeatureProperties": {},
    "ImageProperties": {"color_space": "byte", "default_size": "ImageSize"},
    "ImageSize": {"width": "uint", "height": "uint"},
    "BoundingBoxProperties": {"index": "[uint]", "type": "byte", "coordinate_type": "byte"},
    "AudioProperties": {"sample_rate": "uint", "channels": "uint"},
    "ProcessUnit": {"options": "union ProcessUnitOptions"},
    "NormalizationOptions": {"mean": "[float]", "std": "[float]"},
    "ScoreCalibrationOptions": {"score_transformation": "byte", "default_score": "float"},
    "ScoreThresholdingOptions": {"global_score_threshold": "float"},
    "BertTokenizerOptions": {"vocab_file": "[AssociatedFile]"},
    "SentencePieceTokenizerOptions": {"sentencePiece_model": "[AssociatedFile]", "vocab_file": "[AssociatedFile]"},
    "RegexTokenizerOptions": {"delim_regex_pattern": "string", "vocab_file": "[AssociatedFile]"},
    "Stats": {"max": "[float]", "min": "[float]"},
}
UNIONS: dict[str, tuple[str, ...]] = {
    "ContentProperties": ("FeatureProperties", "ImageProperties", "BoundingBoxProperties", "AudioProperties"),
    "ProcessUnitOptions": (
        "NormalizationOptions",
        "ScoreCalibrationOptions",
        "ScoreThresholdingOptions",
        "BertTokenizerOptions",
        "SentencePieceTokenizerOptions",
        "RegexTokenizerOptions",
    ),
}
_NUMBERS: dict[str, Any] = {
    "byte": number_types.Int8Flags,
    "int": number_types.Int32Flags,
    "uint": number_types.Uint32Flags,
    "float": number_types.Float32Flags,
}
_UNION_TYPE = number_types.Uint8Flags
_DAMAGE = (struct.error, IndexError, KeyError, TypeError, ValueError, OverflowError, MemoryError)


def pack(values: Mapping[str, Any]) -> bytes:
    """The flatbuffer of a ModelMetadata.

    Args:
        values: field -> value; a table is a mapping, a vector a sequence, a union (name of its table, mapping). Fields
            that are left out, and None, are not written.

    Raises:
        KeyError: a name that the schema does not have.
    """
    builder = flatbuffers.Builder(1024)
    builder.Finish(_packed(builder, ROOT, values), IDENTIFIER)
    return bytes(builder.Output())


def unpack(content: bytes) -> dict[str, Any]:
    """The fields of a ModelMetadata as `pack` takes them; absent ones are left out, numbers have their default 0.

    Raises:
        ValueError: no metadata, or damaged.
    """
    if content[4:8] != IDENTIFIER:
        raise ValueError(f"TFLite metadata must have {IDENTIFIER!r} in bytes 4 to 7. Received: {content[4:8]!r}")
    try:
        start = struct.unpack_from("<I", content)[0]
        return _Reader(content).table(ROOT, Table(content, start))
    except _DAMAGE as error:
        raise ValueError(f"TFLite metadata points outside itself: damaged ({type(error).__name__})") from error


def _packed(builder: flatbuffers.Builder, table: str, values: Mapping[str, Any]) -> int:
    """Writes what the table points at, then the table; its offset."""
    fields = TABLES[table]
    if unknown := values.keys() - fields.keys():
        raise KeyError(f"{table} has no field {sorted(unknown)}")
    slots: list[tuple[int, str, Any]] = []
    slot = 0
    for name, kind in fields.items():
        value = values.get(name)
        if value is not None:
            if kind.startswith("union "):
                member, content = value
                slots.append((slot, "union", UNIONS[kind.removeprefix("union ")].index(member) + 1))
                slots.append((slot + 1, "offset", _packed(builder, member, content)))
            elif kind in _NUMBERS:
                slots.append((slot, kind, value))
            else:
                slots.append((slot, "offset", _pointed(builder, kind, value)))
        slot += 2 if kind.startswith("union ") else 1
    builder.StartObject(slot)
    for number, kind, value in slots:
        if kind == "offset":
            builder.PrependUOffsetTRelativeSlot(number, value, 0)
        else:
            builder.PrependSlot(_UNION_TYPE if kind == "union" else _NUMBERS[kind], number, value, 0)
    return builder.EndObject()


def _pointed(builder: flatbuffers.Builder, kind: str, value: Any) -> int:
    """Writes a string, a table or a vector; its offset."""
    if kind == "string":
        return builder.CreateString(value)
    if not kind.startswith("["):
        return _packed(builder, kind, value)
    item = kind[1:-1]
    if item in _NUMBERS:
        return builder.CreateNumpyVector(np.array(value, _dtype(item)))
    offsets = [_pointed(builder, item, one) for one in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _dtype(kind: str) -> np.dtype:
    return np.dtype({"byte": "i1", "int": "<i4", "uint": "<u4", "float": "<f4"}[kind])


class _Reader:
    """One pass over a metadata buffer; tables and numbers are counted, since damaged ones may point at each other."""

    def __init__(self, content: bytes) -> None:
        self.left = 4 * len(content)

    def _count(self, items: int) -> None:
        self.left -= items + 1
        if self.left < 0:
            raise ValueError("more items than bytes")

    def table(self, name: str, table: Table) -> dict[str, Any]:
        self._count(len(TABLES[name]))
        values: dict[str, Any] = {}
        slot = 4
        for field, kind in TABLES[name].items():
            offset = table.Offset(slot)
            slot += 4 if kind.startswith("union ") else 2
            if kind in _NUMBERS:
                values[field] = table.GetSlot(slot - 2, 0, _NUMBERS[kind])
            elif kind.startswith("union "):
                members = UNIONS[kind.removeprefix("union ")]
                number = table.GetSlot(slot - 4, 0, _UNION_TYPE)
                where = table.Offset(slot - 2)
                if where and 0 < number <= len(members):  # a later schema may know more members
                    values[field] = (members[number - 1], self._table_at(members[number - 1], table, where))
            elif offset:
                values[field] = self._pointed(kind, table, offset)
        return values

    def _table_at(self, name: str, table: Table, offset: int) -> dict[str, Any]:
        return self.table(name, Table(table.Bytes, table.Indirect(offset + table.Pos)))

    def _pointed(self, kind: str, table: Table, offset: int) -> Any:
        if kind == "string":
            return self._string(table, offset + table.Pos)
        if not kind.startswith("["):
            return self._table_at(kind, table, offset)
        length, start, item = table.VectorLen(offset), table.Vector(offset), kind[1:-1]
        self._count(length)
        if item in _NUMBERS:
            return np.frombuffer(table.Bytes, _dtype(item), length, start).tolist()
        places = [start + 4 * number for number in range(length)]
        if item == "string":
            return [self._string(table, place) for place in places]
        return [self.table(item, Table(table.Bytes, table.Indirect(place))) for place in places]

    def _string(self, table: Table, place: int) -> str:
        text = table.String(place)
        self._count(len(text))
        return text.decode("utf-8", errors="replace")
