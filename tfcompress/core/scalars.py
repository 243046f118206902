"""What counts as a number of a user's: Python's and NumPy's alike, but no bool."""

import math
from numbers import Integral, Real
from typing import Any


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether it is a whole number, and not below the least.

    >>> import numpy as np
    >>> is_whole(np.int64(4)), is_whole(4.0), is_whole(True), is_whole(0)
    (True, False, False, False)
    """
    return not isinstance(value, bool) and isinstance(value, Integral) and int(value) >= least


def is_finite(value: Any) -> bool:
    """Whether it is a finite number.

    >>> import numpy as np
    >>> is_finite(np.float32(0.5)), is_finite(2), is_finite(float("inf")), is_finite("2")
    (True, True, False, False)
    """
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
