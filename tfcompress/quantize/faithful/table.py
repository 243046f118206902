"""Which operations are evaluated in the very integers of each kernel set."""

from tfcompress.core.arithmetic.codes import KERNELS
from tfcompress.core.arithmetic.table import TABLE


def faithful_ops() -> dict[str, dict[str, str]]:
    """The table of operations and kernel sets: "exact", or the share of elements that are equal.

    Measured on single operations with random scales and zero points, on every edge of the integer range.

    >>> sorted(faithful_ops()["CONV_2D"])
    ['reference', 'tflm', 'xnnpack']
    """
    return {
        operation: {kernels: _shown(rates.get(kernels, "not computed")) for kernels in KERNELS}
        for operation, rates in sorted(TABLE.items())
    }


def _shown(rate: str | float) -> str:
    return rate if isinstance(rate, str) else f"{100 * rate:.3g} %"
