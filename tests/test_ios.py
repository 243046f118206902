"""The Swift file needs a Mac to be compiled; that it reads the same bundle and writes the same results can be seen."""

import dataclasses
import re
from pathlib import Path

import pytest

from tflite_export.bench import android_app
from tflite_export.manifest import FORMAT, SCHEMA, TYPES, BundleEnd, BundleInput, BundleModel, Manifest

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "ios"
SWIFT = (FOLDER / "BundleRunner.swift").read_text(encoding="utf-8")


def members(name: str) -> set[str]:
    """Stored constants of a struct, in the spelling of JSON."""
    body = re.search(rf"struct {name}: Decodable \{{(.*?)\n  ?\}}", SWIFT, re.DOTALL)[1]
    names = re.findall(r"\b(\w+)(?=\s*[,:])", " ".join(re.findall(r"let ([^\n]*)", body)))
    return {re.sub(r"(?<=[a-z])([A-Z])", lambda m: "_" + m[1].lower(), one) for one in names}


@pytest.mark.parametrize(("struct", "kind"), [("Input", BundleInput), ("End", BundleEnd), ("Model", BundleModel)])
def test_what_it_reads_is_in_the_manifest(struct, kind):
    known = {field.name for field in dataclasses.fields(kind)}
    assert members(struct) and members(struct) <= known, members(struct) - known


def test_it_knows_the_format_and_the_types():
    assert f'read.format == "{FORMAT}", read.schema == {SCHEMA}' in SWIFT
    for name in TYPES:
        assert f'"{name}": {TYPES[name]}' in SWIFT
    assert {"name", "labels", "rows", "inputs", "models"} <= {field.name for field in dataclasses.fields(Manifest)}


def test_it_writes_the_results_of_the_contract():
    contract = android_app.__doc__.partition("results.json")[2]
    entry = contract.partition("entries")[2]
    wanted = {"schema", "run", "finished", "error", "app", "runtime", "version", "entries", "agreement"}
    wanted |= {"name", "sha256", "status", "reason", "delegate", "operations", "warnings", "peak_memory", "spread"}
    wanted |= set(re.findall(r"\b(\w+_ms)\b", entry)) | {"against", "values", "equal", "largest", "unit"}
    assert len(wanted) >= 25
    assert [key for key in sorted(wanted) if f'"{key}":' not in SWIFT] == []


def test_brackets_close():
    text = re.sub(r'"(\\.|[^"\\])*"|//[^\n]*', "", SWIFT)
    for left, right in ("()", "[]", "{}"):
        assert text.count(left) == text.count(right) > 0
