"""Bare weights of composites: those that are kernels of a product lie on the weight grid."""

import numpy as np
import pytest

import tfcompress
from tests.core.composites import chain, floats, ops
from tests.zoo import keras, layers
from tfcompress.core.grid import Grid
from tfcompress.core.trace import trace
from tfcompress.core.transformed import integer_weights
from tfcompress.quantize.bare import bare_grid, bare_kernels
from tfcompress.quantize.quantizer import quantizers


class Bare(layers.Layer):
    """Owns a weight; the layer inside makes it a composite."""

    def __init__(self, shape, use, **kwargs):
        super().__init__(**kwargs)
        self.size, self.use, self.inner = shape, use, layers.Dense(4, name="inner")

    def build(self, given):
        self.table = self.add_weight(name="table", shape=self.size, initializer="random_normal")
        self.inner.build(given)
        self.built = True

    def call(self, x):
        return self.use(self.inner(x), self.table)


# x: [B, 5, 4]; shape of the weight, its use, whether it is a kernel
USES = {
    "experts": ((3, 4, 6), lambda x, w: ops.einsum("btd,edh->bteh", x, w), True),
    "matrix": ((4, 6), lambda x, w: ops.matmul(x, w), True),
    "turned": ((6, 4), lambda x, w: ops.matmul(x, ops.transpose(w, (1, 0))), True),
    "added": ((5, 4), lambda x, w: x + w, False),
    "both": ((4, 4), lambda x, w: ops.matmul(x, w) + ops.reshape(w, (1, 4, 4))[:, :1], False),
    "scale": ((4,), lambda x, w: x * w, False),
}


@pytest.mark.parametrize("shape, use, is_kernel", USES.values(), ids=USES)
def test_a_bare_weight_is_on_the_weight_grid_where_it_is_a_kernel(shape, use, is_kernel):
    model, x = chain(floats(5, 4), Bare(shape, use, name="block"))
    assert list(bare_kernels(trace(model)).values()) == [False] * is_kernel  # no convolution
    quantized = tfcompress.quantize_model(model)
    found = {w.layer: w for w in integer_weights(quantized)}
    assert ("block.table" in found) is is_kernel
    assert any(q.name == "block.table_range" for q in quantizers(quantized)) is not is_kernel
    if is_kernel:  # one scale: the largest magnitude is 127 steps
        value = np.asarray(model.get_layer("block").table)
        np.testing.assert_allclose(found["block.table"].scale, np.abs(value).max() / 127, rtol=1e-6)
    quantized(x)


def test_a_bare_kernel_is_loaded_on_its_grid(tmp_path):
    shape, use, _ = USES["experts"]
    model, x = chain(floats(5, 4), Bare(shape, use, name="block"))
    quantized = tfcompress.quantize_model(model)
    quantized.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), quantized(x))
    np.testing.assert_array_equal(integer_weights(again)[0].codes, integer_weights(quantized)[0].codes)


def test_the_experts_integers_stand_in_the_file():
    tflite_export = pytest.importorskip("tflite_export")
    shape, use, _ = USES["experts"]
    model, x = chain(floats(5, 4), Bare(shape, use, name="block"), layers.Flatten(), layers.Dense(3))
    quantized = tfcompress.calibrate(tfcompress.quantize_model(model), x)
    report = tflite_export.export(quantized, "int8", calibration=x).report
    assert any("block.table/table, planted" in row.detail for row in report.rows)
    assert not report.notes and not report.float_operations


def test_grids_of_bare_kernels():
    assert bare_grid(Grid(bits=4), False) == Grid(bits=4, axis=None)
    assert bare_grid(Grid(), True) == Grid(axis=-1)
    assert bare_grid(Grid(axis=None), True) == Grid(axis=None)
