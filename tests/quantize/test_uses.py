"""What a user's own layer does with its weights decides which of them are kernels."""

import numpy as np
import pytest

import tfcompress
from tests.core.composites import chain, floats, integers, ops
from tests.zoo import layers
from tfcompress.core.replay import calls
from tfcompress.core.trace import trace
from tfcompress.core.transformed import integer_weights
from tfcompress.quantize.uses import uses

take = getattr(ops, "take", None) or ops.gather


class Own(layers.Layer):
    """A leaf of the user's with one weight."""

    def __init__(self, shape, use, **kwargs):
        super().__init__(**kwargs)
        self.size, self.use = shape, use

    def build(self, given):
        self.table = self.add_weight(name="table", shape=self.size, initializer="random_normal")
        self.built = True

    def call(self, x):
        return self.use(x, self.table)

    def get_config(self):
        return {**super().get_config(), "shape": self.size, "use": None}


# data, shape of the weight, its use, what it is, how many scales it has
USES = {
    "product": (floats(5, 4), (4, 6), lambda x, w: ops.matmul(x, w), "product", 6),
    "turned": (floats(5, 4), (6, 4), lambda x, w: ops.matmul(x, ops.transpose(w, (1, 0))), "turned", 1),
    "table": (integers(5, below=9), (9, 4), lambda x, w: take(w, x, axis=0), "table", 1),
    "positions": (floats(5, 4), (5, 4), lambda x, w: x + w, "other", None),
    "gates": (floats(5, 4), (5, 4), lambda x, w: x * w, "other", None),
}


@pytest.mark.parametrize("x, shape, use, kind, scales", USES.values(), ids=USES)
def test_the_use_of_a_weight(x, shape, use, kind, scales):
    model, _ = chain(x, Own(shape, use, name="own"), layers.Dense(3, name="head"))
    own, head = calls(trace(model))
    assert uses(own) == {"table": kind} and uses(head) is None
    found = {w.layer: int(np.size(w.scale)) for w in integer_weights(tfcompress.quantize_model(model))}
    assert found == {"head": 3, **({} if scales is None else {"own": scales})}
