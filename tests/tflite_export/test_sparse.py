"""Which convolutions run sparse by the runtime's rules, and that a sparse file computes what the dense one does."""

import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

import tflite_export
from tests.zoo import answers
from tflite_export import ExportError, sparse_file
from tflite_export.bench import web
from tflite_export.bench.outcome import unavailable
from tflite_export.bench.result import Agreement, Result
from tflite_export.sparse_file import verified

keras = tf.keras
layers = keras.layers


def separable(x, filters, strides=1, size=3):
    x = layers.ZeroPadding2D(size // 2)(x)
    x = layers.DepthwiseConv2D(size, strides=strides, use_bias=False, activation="relu")(x)
    return layers.Conv2D(filters, 1, activation="relu", name=f"point_{x.shape[-1]}_{filters}")(x)


def stem(size=16, channels=3, padding="explicit"):
    inputs = keras.Input((size, size, channels))
    x = layers.ZeroPadding2D(1)(inputs) if padding == "explicit" else inputs
    x = layers.Conv2D(8, 3, 2, padding="valid" if padding == "explicit" else padding, activation="relu", name="stem")(x)
    return inputs, x


def thinned(model, share=0.8, seed=0):
    """The model with this share of zeros in its 1x1 convolutions."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1):
            kernel, *rest = layer.get_weights()
            order = rng.permutation(kernel.size)[: round(share * kernel.size)]
            kernel.reshape(-1)[order] = 0
            layer.set_weights([kernel, *rest])
    return model


def closed(inputs, x, **arguments):
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D(**arguments)(x)))


def rows(model, monkeypatch):
    """layer -> what the report says of it; the file is not run."""
    monkeypatch.setattr(sparse_file, "verified", lambda content: "")
    report = tflite_export.export(model, sparse=True).report
    return {row.name: row.detail for row in report.rows if row.kind == "sparse"}


def test_a_mobile_network_runs_sparse(monkeypatch):
    inputs, x = stem()
    model = thinned(closed(inputs, separable(separable(x, 16), 24, strides=2, size=5)))
    assert rows(model, monkeypatch) == {
        "point_8_16": "79.7% zeros, runs sparse", "point_16_24": "79.9% zeros, runs sparse",
    }  # fmt: skip


def residual(x):
    y = layers.Conv2D(8, 1, name="branch")(x)
    return layers.Multiply()([layers.Add()([x, y]), layers.ReLU()(y)])


def test_sums_and_products_are_part_of_it(monkeypatch):
    inputs, x = stem()
    assert rows(thinned(closed(inputs, residual(x))), monkeypatch) == {"branch": "79.7% zeros, runs sparse"}


def broken_after(inputs, x):
    x = layers.Conv2D(8, 3, padding="same", name="late")(layers.Conv2D(16, 1, name="p")(x))
    return closed(inputs, layers.Conv2D(8, 1)(x))


def average_head(inputs, x):
    return keras.Model(inputs, layers.Flatten()(layers.AveragePooling2D(8)(layers.Conv2D(16, 1, name="p")(x))))


def two_outputs(inputs, x):
    x = layers.Conv2D(16, 1, name="p")(x)
    return keras.Model(inputs, [layers.GlobalAveragePooling2D()(x), x])


REASONS = {
    "padding that the runtime adds": (
        lambda: closed(*_pointed(stem(padding="same"))),
        "CONV_2D .* comes before it: pad it by 1 on all sides: ZeroPadding2D\\(1\\) before it",
    ),
    "an odd size": (lambda: closed(*_pointed(stem(size=15))), "with stride 2 an even size"),
    "one channel": (lambda: closed(*_pointed(stem(channels=1))), "a 3 x 3 convolution with 1 input channels"),
    "strides": (lambda: closed(*_pointed(stem(), strides=2)), "it has strides of 2 x 2"),
    "a padded input": (
        lambda: closed(*_pointed(_behind(stem(), layers.ZeroPadding2D(1)))),
        "its input is padded",
    ),
    "padding by a layer and by the convolution": (
        lambda: closed(*_pointed(_behind(stem(), layers.ZeroPadding2D(1), layers.DepthwiseConv2D(3, padding="same")))),
        "DEPTHWISE_CONV_2D .* comes before it: pad it by 1 on all sides",
    ),
    "a table to add": (
        lambda: closed(*_pointed(_behind(stem(), layers.Lambda(lambda x: x + ROWS)))),
        "ADD .* comes before it: one operand is constant",
    ),
    "no stem": (lambda: closed(*_pointed((lambda i: (i, i))(keras.Input((8, 8, 3))))), "reads an input of the model"),
    "another convolution behind": (lambda: broken_after(*stem()), "comes after it: a 3 x 3"),
    "an average pool as head": (
        lambda: average_head(*stem()),
        "AVERAGE_POOL_2D .* comes after it: .* what ends such a part is a GlobalAveragePooling2D",
    ),
    "an output inside": (lambda: two_outputs(*stem()), "is an output of the model"),
}


def _behind(ends, *more):
    inputs, x = ends
    for layer in more:
        x = layer(x)
    return inputs, x


ROWS = np.linspace(-1, 1, 8, dtype="float32").reshape(1, 8, 1, 1)


def _pointed(ends, strides=1):
    inputs, x = ends
    return inputs, layers.Conv2D(16, 1, strides=strides, name="p")(x)


@pytest.mark.parametrize("name", list(REASONS))
def test_the_report_says_why_a_convolution_runs_dense(name, monkeypatch):
    make, words = REASONS[name]
    found = rows(thinned(make()), monkeypatch)["p"]
    assert re.search(rf"zeros, runs dense: .*({words})", found), found


def test_two_thirds_of_all_weights_together_must_be_zero(monkeypatch):
    for share, words in ((0.6, "60.4% of the weights .* more than 66.7% must be"), (0.7, "runs sparse")):
        inputs, x = stem()
        found = rows(thinned(closed(inputs, separable(x, 12)), share), monkeypatch)
        assert re.search(words, found["point_8_12"]), found


def test_a_sparse_file_is_smaller_and_computes_the_same():
    inputs, x = stem()
    model = thinned(closed(inputs, separable(separable(x, 64), 128, strides=2)), 0.9)
    dense, sparse = tflite_export.export(model), tflite_export.export(model, sparse=True)
    assert len(sparse) < 0.6 * len(dense)
    images = np.random.default_rng(0).random((4, 16, 16, 3)).astype("float32")
    expected = answers(model, images)
    np.testing.assert_allclose(tflite_export.Runner(sparse)(images), expected, atol=1e-5)
    described = tflite_export.describe(sparse)
    assert described.macs() == tflite_export.describe(dense).macs()
    assert described.zeros() == pytest.approx(tflite_export.describe(dense).zeros(), abs=1e-6)
    note = sparse.report.notes[-1]
    installed = shutil.which("node") is not None and not web.missing({})
    assert ("are those of the reference kernels within" in note) == installed
    assert installed or "not compared on a runtime that runs the sparse kernels" in note


def test_a_file_without_zeros_or_a_place_for_them_says_so(monkeypatch):
    inputs, x = stem()
    model = closed(inputs, separable(x, 16))
    assert "zeros enough" in tflite_export.export(model, sparse=True).report.notes[0]
    model = thinned(closed(*_pointed(stem(padding="same"))), 0.9)
    assert "no convolution of this file will run sparse" in tflite_export.export(model, sparse=True).report.notes[0]


@pytest.mark.parametrize("precision", ["float16", "dynamic", "int8"])
def test_other_precisions_are_refused(precision):
    with pytest.raises(ValueError, match="`sparse` needs precision 'float32'"):
        tflite_export.export(closed(*stem()), precision, sparse=True)


def result(**fields):
    base = {"name": "sparse", "sha256": "", "size": 1, "target": "web", "runtime": "LiteRT.js", "version": "1"}
    return Result(**{**base, **fields})


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (result(status="failed", reason="failed to prepare"), "does not run the file sparse: failed to prepare"),
        (result(agreement=Agreement("reference", 9, 0.0, 0.5, "real")), "something else sparse than dense.*up to 0.5"),
        (result(agreement=Agreement("reference", 9, 0.0, float("nan"), "real")), "something else sparse than dense"),
    ],
)
def test_a_runtime_that_disagrees_is_an_error(answer, words, monkeypatch):
    monkeypatch.setattr(web, "missing", lambda options: [])
    monkeypatch.setattr(web, "run", lambda job: [answer])
    monkeypatch.setattr(sparse_file, "_size", lambda content: 10.0)  # of the largest output
    with pytest.raises(ExportError, match=words):
        verified(b"")


def test_differences_are_judged_by_the_size_of_outputs(monkeypatch):
    answer = result(agreement=Agreement("reference", 9, 0.0, 5e-4, "real"))
    monkeypatch.setattr(web, "missing", lambda options: [])
    monkeypatch.setattr(web, "run", lambda job: [answer])
    monkeypatch.setattr(sparse_file, "_size", lambda content: 10.0)
    assert verified(b"").endswith("are those of the reference kernels within 0.0005")
    monkeypatch.setattr(sparse_file, "_size", lambda content: 1.0)
    with pytest.raises(ExportError, match="something else"):
        verified(b"")


def test_what_could_not_be_compared_is_said(monkeypatch):
    from tflite_export.bench.job import Missing, Named

    monkeypatch.setattr(web, "missing", lambda options: [Missing("Node.js", "install it")])
    assert verified(b"").endswith("Node.js is missing: install it")
    monkeypatch.setattr(web, "missing", lambda options: [])
    gone = unavailable(Named("sparse", b""), "web", [Missing("Node.js", "install it")])
    monkeypatch.setattr(web, "run", lambda job: [gone])
    assert "not compared" in verified(b"")
