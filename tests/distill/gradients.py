"""Gradients against finite differences."""

import numpy as np
import tensorflow as tf


def check_gradient(loss, at, step=1e-2, atol=2e-3):
    """The gradient against (f(x + h) - f(x - h)) / 2h, one coordinate after another."""
    point = tf.constant(at)
    with tf.GradientTape() as tape:
        tape.watch(point)
        value = loss(point)
    found = tape.gradient(value, point).numpy()
    expected = np.zeros_like(at, dtype="float64")
    for place in np.ndindex(*at.shape):
        up, down = at.copy(), at.copy()
        up[place] += step
        down[place] -= step
        expected[place] = (float(loss(tf.constant(up))) - float(loss(tf.constant(down)))) / (2 * step)
    assert np.abs(expected).max() > 10 * atol or np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(found, expected, rtol=2e-2, atol=atol)
