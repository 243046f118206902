"""Every example in a docstring gives what it says."""

import doctest
import importlib
import os
from pathlib import Path

import pytest

import tfcompress
import tflite_export

# Of the two packages that speak to Keras, only that of the flavor in force loads.
OTHER_FLAVOR = f"tfcompress.core.{'keras3' if os.environ.get('TF_USE_LEGACY_KERAS') == '1' else 'legacy'}"
FILES = {package: sorted(Path(package.__path__[0]).rglob("*.py")) for package in (tfcompress, tflite_export)}
NAMES = [
    ".".join((package.__name__, *path.relative_to(package.__path__[0]).with_suffix("").parts)).removesuffix(".__init__")
    for package, paths in FILES.items()
    for path in paths
]
MODULES = [
    name for name in NAMES if not f"{name}.".startswith(f"{OTHER_FLAVOR}.") and not name.endswith(".__main__")
]
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert failed == 0
