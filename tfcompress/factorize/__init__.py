"""Low rank: kernels as products of smaller ones, and layers to build with them."""

from tfcompress.factorize.apply import factorize_model
from tfcompress.factorize.decompose import compose, decompose, full_ranks
from tfcompress.factorize.layers import FactorizedConv2D, FactorizedDense
from tfcompress.factorize.regularizers import NuclearNorm, nuclear_norm
from tfcompress.factorize.vbmf import vbmf_rank

__all__ = [
    "FactorizedConv2D",
    "FactorizedDense",
    "NuclearNorm",
    "compose",
    "decompose",
    "factorize_model",
    "full_ranks",
    "nuclear_norm",
    "vbmf_rank",
]
