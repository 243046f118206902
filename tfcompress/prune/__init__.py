"""Sparsity: zeros held by projections while a plain model trains, and channels taken out for good."""

from tfcompress.prune.budgets import ErdosRenyi, Global, PerLayer, Uniform
from tfcompress.prune.callback import Pruning
from tfcompress.prune.data_scores import Apoz, Gradient, Movement, Taylor, Wanda
from tfcompress.prune.keep_zeros import KeepZeros
from tfcompress.prune.patterns import Block, Channels, NofM, Unstructured
from tfcompress.prune.schedules import ConstantSparsity, CosineDecay, Iterative, OneShot, PolynomialDecay
from tfcompress.prune.scores import Magnitude, Random
from tfcompress.prune.second_order import OBD, OBS, SparseGPT

__all__ = [
    "OBD",
    "OBS",
    "Apoz",
    "Block",
    "Channels",
    "ConstantSparsity",
    "CosineDecay",
    "ErdosRenyi",
    "Global",
    "Gradient",
    "Iterative",
    "KeepZeros",
    "Magnitude",
    "Movement",
    "NofM",
    "OneShot",
    "PerLayer",
    "PolynomialDecay",
    "Pruning",
    "Random",
    "SparseGPT",
    "Taylor",
    "Uniform",
    "Unstructured",
    "Wanda",
]
