"""A quantized model evaluated in the integers of a named kernel set.

The model's graph is walked once; what travels are codes on lattices instead of real numbers. An operation that a rule
knows waits (`Pending`) until the quantizer behind it says on which lattice its result stands, since that is what the
runtime's one kernel does. What no rule knows computes in real numbers, and is listed as approximate.
"""

from tfcompress.quantize.faithful.evaluator import Faithful
from tfcompress.quantize.faithful.table import faithful_ops

__all__ = ["Faithful", "faithful_ops"]
