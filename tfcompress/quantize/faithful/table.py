"""Which operations are evaluated in the very integers of each kernel set."""

from tfcompress.core.arithmetic.codes import KERNELS
from tfcompress.core.arithmetic.table import TABLE


class FaithfulOps(dict[str, dict[str, str]]):
    """operation -> kernel set -> "exact", "no such kernel", or the share of elements that are equal.

    str() is a Markdown table in which operations of one verdict share a row.
    """

    def __str__(self) -> str:
        rows: dict[tuple[str, ...], list[str]] = {}
        for operation, verdicts in self.items():
            rows.setdefault(tuple(verdicts[kernels] for kernels in KERNELS), []).append(operation)
        shown = [("operations", *KERNELS), ("---",) * (len(KERNELS) + 1)]
        shown += [(", ".join(operations), *verdicts) for verdicts, operations in rows.items()]
        return "\n".join(f"| {' | '.join(row)} |" for row in shown)


def faithful_ops() -> FaithfulOps:
    """The table of operations and kernel sets: whose formula gives the runtime's integers.

    A model made with `kernels=` computes by these where its layers and operations are followed; those that are not, its
    `notes` list. No layer is computed with ABS, BATCH_MATMUL, L2_NORMALIZATION, LOG, MAXIMUM, MINIMUM, PACK, PADV2,
    SQUARED_DIFFERENCE and SUM as yet, nor with AVERAGE_POOL_2D, CONCATENATION and PRELU of 16 bits.

    Every entry was measured on single operations with random scales and zero points, at the edges of the integer
    range, against the runtime on x86-64. "int16" and "int16x8" are operations on 16-bit activations, "int4" kernels
    packed two to a byte, all others 8-bit ones. Known exceptions: on "xnnpack", LOGISTIC int16 and TANH int16 of inputs
    whose scale is 2**-12 (TANH also 2**-11), and the last fewer than 16 elements of an ADD int16.

    >>> faithful_ops()["CONV_2D"]
    {'xnnpack': 'exact', 'reference': 'exact', 'tflm': 'exact'}
    """
    return FaithfulOps(
        (operation, {kernels: _shown(rates[kernels]) for kernels in KERNELS})
        for operation, rates in sorted(TABLE.items())
    )


def _shown(rate: str | float) -> str:
    return rate if isinstance(rate, str) else f"{100 * rate:.3g} % equal"
