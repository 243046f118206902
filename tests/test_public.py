"""The public face: what may be imported, what it costs, and what needs no TensorFlow."""

import importlib
import subprocess
import sys
import time

import pytest

# `None` in sys.modules makes every import of the name fail, as if it were not installed.
WITHOUT_TENSORFLOW = "import sys; sys.modules.update(dict.fromkeys(('tensorflow', 'keras', 'tf_keras'))); "

TFCOMPRESS = {
    "CompressionError", "add_lora", "calibrate", "distill", "factorize", "factorize_model", "finalize", "lora",
    "merge_lora", "prune", "prune_channels", "prune_layers", "quantize", "quantize_model", "summary", "trace",
}  # fmt: skip
TFLITE_EXPORT = {
    "ExportError", "Exported", "Result", "Runner", "audit", "benchmark", "compare", "describe", "export",
    "export_bundle", "firmware", "load_bundle", "read_metadata", "report", "table", "write_metadata",
}  # fmt: skip


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("package", "names"), [("tfcompress", TFCOMPRESS), ("tflite_export", TFLITE_EXPORT)])
def test_every_public_name_is_listed_and_loads(package, names):
    module = importlib.import_module(package)
    assert set(module.__all__) == names
    assert sorted(module.__all__) == dir(module)
    for name in names:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'missing'"):
        _ = module.missing


@pytest.mark.parametrize(("package", "names"), [("tfcompress", TFCOMPRESS), ("tflite_export", TFLITE_EXPORT)])
def test_public_functions_and_classes_are_documented(package, names):
    module = importlib.import_module(package)
    for name in names:
        assert (getattr(module, name).__doc__ or "").strip(), name


def test_importing_the_packages_imports_no_tensorflow():
    code = "import sys, tfcompress, tflite_export; print({'tensorflow', 'keras', 'tf_keras'} & set(sys.modules))"
    assert python(code).stdout.strip() == "set()"


def test_a_saved_model_loads_where_tensorflow_and_tfcompress_are_imported(tmp_path):
    import tensorflow as tf

    import tfcompress as tfc

    model = tfc.quantize_model(tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(3, name="body")]))
    model.save(tmp_path / "model.keras")
    code = f"tf.keras.models.load_model({str(tmp_path / 'model.keras')!r}).get_layer('body').name"
    done = python(f"import tensorflow as tf, tfcompress; print({code})")
    assert done.stdout.strip() == "body", done.stderr[-2000:]


@pytest.mark.parametrize("name", sorted(TFLITE_EXPORT - {"export"}))
def test_readers_load_without_tensorflow(name):
    done = python(WITHOUT_TENSORFLOW + f"import tflite_export; print(tflite_export.{name}.__name__)")
    assert done.stdout.strip() == name, done.stderr


@pytest.mark.parametrize("module", ["tfcompress.cli", "tflite_export.cli"])
def test_help_needs_no_tensorflow_and_answers_within_a_second(module):
    code = WITHOUT_TENSORFLOW + f"import {module} as cli; cli.main(['--help'])"
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = python(code)
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
        assert "usage:" in done.stdout
    assert min(seconds) < 1.0


@pytest.mark.parametrize("use", ["import tfcompress; tfcompress.quantize_model", "from tflite_export import export"])
def test_a_missing_tensorflow_is_named_with_the_command_that_installs_it(use):
    done = python(WITHOUT_TENSORFLOW + use)
    assert done.returncode
    assert "pip install 'tfcompress[tensorflow]'" in done.stderr
