"""What LiteRT's own kernels run on a processor: what accelerators leave over."""

from tflite_export.auditing.rules import Rules
from tflite_export.flatbuffer import KINDS

# In the schema, without a kernel in the resolver that programs link by default.
_WITHOUT_KERNEL = frozenset({"CALL", "CONCAT_EMBEDDINGS", "CUSTOM", "DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES"})
_STABLEHLO_KERNELS = frozenset(
    f"STABLEHLO_{name}"
    for name in (
        *("ADD", "AND", "CASE", "COMPOSITE", "GATHER", "MAXIMUM", "MINIMUM", "MULTIPLY", "PAD", "REDUCE_WINDOW"),
        *("RNG_BIT_GENERATOR", "SCATTER", "SHIFT_LEFT"),
    )
)


def _has_kernel(kind: str) -> bool:
    return kind in _STABLEHLO_KERNELS if kind.startswith("STABLEHLO_") else kind not in _WITHOUT_KERNEL


RULES = Rules(
    target="cpu",
    title="LiteRT's own kernels",
    source="LiteRT, tflite/core/kernels/register.cc",
    operations={kind: () for kind in KINDS.values() if _has_kernel(kind)},
    custom=frozenset(
        {"NumericVerify", "Mfcc", "AudioSpectrogram", "TFLite_Detection_PostProcess", "aeq.hadamard_rotation"}
    ),
    unpacks=True,
)
