"""What TFLite metadata says of one input or output, checked when it is made."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

CONTENTS = ("", "feature", "image", "audio", "boxes")
COLORS = ("", "rgb", "grayscale")
LABEL_KINDS = ("axis", "value")
_MEMBERS = {
    "feature": "FeatureProperties",
    "image": "ImageProperties",
    "audio": "AudioProperties",
    "boxes": "BoundingBoxProperties",
}
# AssociatedFileType of the schema.
_AXIS_LABELS, _VALUE_LABELS = 2, 3


@dataclass(frozen=True)
class TensorMetadata:
    """One input or output. Numbers may be given as one number, labels as a list or as the path of a file.

    Attributes:
        name: for people and generated code, such as "image"; the signature's name when left out.
        description: one or more sentences.
        content: "image", "audio", "boxes" or "feature" (anything else); "" when it is not told.
        color: of an image: "rgb" or "grayscale"; Android's and MediaPipe's image tasks need "rgb".
        sample_rate: of audio, Hz.
        channels: of audio.
        mean, std: normalisation that the app does, (value - mean) / std: [1], or [channels]; std positive.
        min, max: range of the tensor's values: [1], or [channels].
        labels: one a line of the label file, in order.
        label_kind: "axis": label i names position i of the last axis (classes). "value": label i names the value i
            (a detector's tensor of class numbers).
        labels_file: name of the label file inside the model; made from `name` when left out.
        dimension_names: one an axis.
    """

    name: str = ""
    description: str = ""
    content: str = ""
    color: str = ""
    sample_rate: int = 0
    channels: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    min: tuple[float, ...] = ()
    max: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    label_kind: str = "axis"
    labels_file: str = ""
    dimension_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("mean", "std", "min", "max"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        object.__setattr__(self, "labels", _labels(self.labels))
        object.__setattr__(self, "dimension_names", tuple(self.dimension_names))
        for name, value, accepted in (
            ("content", self.content, CONTENTS),
            ("color", self.color, COLORS),
            ("label_kind", self.label_kind, LABEL_KINDS),
        ):
            if value not in accepted:
                raise ValueError(f"`{name}` must be one of {list(accepted)}. Received: {name}={value!r}")
        if len(self.mean) != len(self.std):
            raise ValueError(f"`mean` and `std` must be as long. Received: mean={self.mean}, std={self.std}")
        if any(value <= 0 for value in self.std):
            raise ValueError(f"`std` must be positive. Received: std={self.std}")
        if self.color and self.content not in ("", "image"):
            raise ValueError(f"`color` is of images. Received: color={self.color!r}, content={self.content!r}")
        if self.color and not self.content:
            object.__setattr__(self, "content", "image")
        if (self.sample_rate or self.channels) and self.content not in ("", "audio"):
            raise ValueError(f"`sample_rate` and `channels` are of audio. Received: content={self.content!r}")
        if (self.sample_rate or self.channels) and not self.content:
            object.__setattr__(self, "content", "audio")

    @classmethod
    def of(cls, value: "TensorMetadata | Mapping[str, Any]") -> "TensorMetadata":
        """From itself, or from a mapping of its attributes.

        Raises:
            ValueError: a key that is no attribute, or a value that does not fit; neither kind of argument.
        """
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"`inputs` and `outputs` must hold mappings such as {{'std': 1}}. Received: {value!r}")
        known = [entry.name for entry in fields(cls)]
        if unknown := [key for key in value if key not in known]:
            raise ValueError(f"`inputs` and `outputs` know {known}. Received: {unknown}")
        return cls(**value)

    def record(self) -> dict[str, Any]:
        """The fields of the schema's TensorMetadata."""
        record: dict[str, Any] = {
            "name": self.name or None,
            "description": self.description or None,
            "dimension_names": self.dimension_names or None,
        }
        if self.content:
            record["content"] = {"content_properties": (_MEMBERS[self.content], self._properties())}
        if self.mean:
            options = {"mean": self.mean, "std": self.std}
            record["process_units"] = [{"options": ("NormalizationOptions", options)}]
        if self.min or self.max:
            record["stats"] = {"max": self.max or None, "min": self.min or None}
        if self.labels:
            kind = _AXIS_LABELS if self.label_kind == "axis" else _VALUE_LABELS
            record["associated_files"] = [{"name": self.labels_file, "description": "Labels.", "type": kind}]
        return record

    def _properties(self) -> dict[str, Any]:
        if self.content == "image":
            return {"color_space": COLORS.index(self.color)}
        if self.content == "audio":
            return {"sample_rate": self.sample_rate, "channels": self.channels}
        return {}

    @classmethod
    def of_record(cls, record: Mapping[str, Any], files: Mapping[str, bytes]) -> "TensorMetadata":
        """From the schema's TensorMetadata and the files packed into the model.

        Raises:
            ValueError: numbers in it that no app could use, such as a deviation of 0.
        """
        member, properties = record.get("content", {}).get("content_properties", ("", {}))
        contents = {member: content for content, member in _MEMBERS.items()}
        values: dict[str, Any] = {
            "name": record.get("name", ""),
            "description": record.get("description", ""),
            "content": contents.get(member, ""),
            "dimension_names": tuple(record.get("dimension_names", ())),
        }
        color = properties.get("color_space", 0)
        values["color"] = COLORS[color] if 0 <= color < len(COLORS) else ""
        values["sample_rate"], values["channels"] = properties.get("sample_rate", 0), properties.get("channels", 0)
        for unit in record.get("process_units", ()):
            kind, options = unit.get("options", ("", {}))
            if kind == "NormalizationOptions":
                values["mean"], values["std"] = _decimal(options.get("mean", ())), _decimal(options.get("std", ()))
        stats = record.get("stats", {})
        values["min"], values["max"] = _decimal(stats.get("min", ())), _decimal(stats.get("max", ()))
        for file in record.get("associated_files", ()):
            if file["type"] in (_AXIS_LABELS, _VALUE_LABELS) and file.get("name", "") in files:
                values["labels"] = lines_of(files[file["name"]])
                values["labels_file"] = file["name"]
                values["label_kind"] = "axis" if file["type"] == _AXIS_LABELS else "value"
                break  # further ones are the same in other languages
        return cls(**values)


def lines_of(content: bytes) -> tuple[str, ...]:
    """Lines of a label file, without the end of the last one.

    >>> lines_of(b"cat\\r\\ndog\\n")
    ('cat', 'dog')
    """
    lines = content.decode("utf-8", errors="replace").replace("\r\n", "\n").split("\n")
    return tuple(lines[:-1] if lines[-1] == "" else lines)


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(float(one) for one in (value if isinstance(value, (Sequence, np.ndarray)) else [value]))
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be a number or a sequence of numbers. Received: {name}={value!r}") from None
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"`{name}` must be finite. Received: {name}={value!r}")
    return numbers


def _labels(value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, os.PathLike)):
        try:
            return lines_of(Path(value).read_bytes())
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ValueError(f"`labels` names a file that cannot be read: {os.fspath(value)!r}: {reason}") from error
    labels = tuple(value)
    for label in labels:
        if not isinstance(label, str) or "\n" in label or "\r" in label:
            raise ValueError(f"`labels` must be texts of one line, or the path of a file. Received: {label!r}")
    return labels


def _decimal(values: Sequence[float]) -> tuple[float, ...]:
    """float32 numbers as the shortest decimals that stand for them: what was written, up to 7 digits.

    >>> _decimal([0.48500001430511475])
    (0.485,)
    """
    return tuple(float(str(np.float32(value))) for value in values)
