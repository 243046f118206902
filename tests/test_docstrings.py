"""Every example in a docstring gives what it says."""

import doctest
import importlib
import os
import pkgutil

import pytest

import tfcompress
import tflite_export

# Of the two modules that speak to Keras, only that of the flavor in force loads.
OTHER_FLAVOR = f"tfcompress.core.{'keras3' if os.environ.get('TF_USE_LEGACY_KERAS') == '1' else 'legacy'}"
MODULES = sorted(
    module.name
    for package in (tfcompress, tflite_export)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if module.name != OTHER_FLAVOR and not module.name.endswith(".__main__")
)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert failed == 0
