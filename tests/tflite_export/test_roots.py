"""Roots and reciprocals: ranges that rows without content do not stretch, 16 bits where 8 are too few."""

import numpy as np
import pytest

from tests.tflite_export.forms import chain, emptied, layers, wide
from tflite_export import export
from tflite_export.draft import Draft
from tflite_export.factors import best_end, root_noise


def test_rows_without_content_do_not_count():
    roots, energy = np.array([0.5, 1.0, 2.0, 1000.0]), np.array([9.0, 4.0, 1.0, 1e-12])
    assert 1.5 < best_end(roots, energy) < 3
    assert best_end(roots, np.array([9.0, 4.0, 1.0, 50.0])) == pytest.approx(1000)  # one that counts


def test_noise_of_roots_by_hand():
    # 255 steps for the root 1; 255 / 16 for the root 4: half of 1 / (sqrt(12) 15.9) = 0.9 %
    assert root_noise(np.array([4.0]), np.ones(1)) == pytest.approx((0.5 / 255 / np.sqrt(12)) ** 2)
    both = (np.array([1.0, 16.0**2]) * 0.5 / 255 / np.sqrt(12)) ** 2
    assert root_noise(np.array([1.0, 16.0]), np.ones(2)) == pytest.approx(both.mean())
    assert root_noise(np.array([1.0, 16.0]), np.array([1.0, 0.0])) == pytest.approx(both[0])


def types(x):
    model, _ = chain(x, layers.LayerNormalization(epsilon=1e-6))
    draft = Draft(export(model, "int8", calibration=x).content)
    (product,) = [op for op in draft.operators if draft.kind(op) == "BATCH_MATMUL"]
    roots = [op for op in draft.operators if draft.kind(op) == "RSQRT"]
    return {draft.type(op.outputs[0]) for op in (product, *roots)}, len(roots)


def test_rows_of_very_different_size_are_measured_in_16_bits():
    assert types(wide(6, 32)) == ({"INT8"}, 1)
    assert types(emptied(wide(6, 32))) == ({"INT8"}, 1)
    assert types(wide(6, 32, offset=0.0, factor=2.0, octaves=2)) == ({"INT16"}, 2)  # on two grids, one 64 times as fine
