"""Roots and reciprocals: ranges that rows without content do not stretch, roots of 16 bits."""

import numpy as np
import pytest

from tests.tflite_export.forms import chain, layers, wide
from tflite_export import export
from tflite_export.draft import Draft
from tflite_export.factors import best_end


def test_rows_without_content_do_not_count():
    roots, energy = np.array([0.5, 1.0, 2.0, 1000.0]), np.array([9.0, 4.0, 1.0, 1e-12])
    assert 1.5 < best_end(roots, energy) < 3
    assert best_end(roots, np.array([9.0, 4.0, 1.0, 50.0])) == pytest.approx(1000)  # one that counts


def types(x, **options):
    model, _ = chain(x, layers.LayerNormalization(epsilon=1e-6))
    draft = Draft(export(model, "int8", calibration=x, **options).content)
    (product,) = [op for op in draft.operators if draft.kind(op) == "BATCH_MATMUL"]
    roots = [op for op in draft.operators if draft.kind(op) == "RSQRT"]
    return {draft.type(op.outputs[0]) for op in (product, *roots)}, len(roots)


def test_roots_of_16_bits_are_read_off_two_grids():
    assert types(wide(6, 32)) == ({"INT16"}, 2)  # one is 64 times as fine
    assert types(wide(6, 32), normalizations="int8") == ({"INT8"}, 1)
