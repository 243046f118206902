"""Every example in a docstring gives what it says."""

import doctest
import importlib
import pkgutil

import pytest

import tfcompress
import tflite_export

MODULES = sorted(
    module.name
    for package in (tfcompress, tflite_export)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert failed == 0
