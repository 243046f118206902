"""Sparsity: zeros held by projections while a plain model trains, and channels taken out for good."""

from tfcompress.prune.blocks import prune_layers
from tfcompress.prune.budgets import ErdosRenyi, Global, PerLayer, Uniform
from tfcompress.prune.callback import Pruning
from tfcompress.prune.channels import prune_channels
from tfcompress.prune.data_scores import Apoz, Gradient, Movement, Taylor, Wanda
from tfcompress.prune.dependencies import Dependencies, Group, Member, dependencies
from tfcompress.prune.history import PruningSummaries
from tfcompress.prune.iterative import prune_iteratively
from tfcompress.prune.keep_zeros import KeepZeros
from tfcompress.prune.patterns import Block, Channels, NofM, Unstructured
from tfcompress.prune.regularizers import L1, GroupLasso, Slimming
from tfcompress.prune.schedules import ConstantSparsity, CosineDecay, Iterative, OneShot, PolynomialDecay
from tfcompress.prune.scores import Magnitude, Random
from tfcompress.prune.second_order import OBD, OBS, SparseGPT
from tfcompress.prune.zeroing import ChannelPruning

__all__ = [
    "L1",
    "OBD",
    "OBS",
    "Apoz",
    "Block",
    "ChannelPruning",
    "Channels",
    "ConstantSparsity",
    "CosineDecay",
    "Dependencies",
    "ErdosRenyi",
    "Global",
    "Gradient",
    "Group",
    "GroupLasso",
    "Iterative",
    "KeepZeros",
    "Magnitude",
    "Member",
    "Movement",
    "NofM",
    "OneShot",
    "PerLayer",
    "PolynomialDecay",
    "Pruning",
    "PruningSummaries",
    "Random",
    "Slimming",
    "SparseGPT",
    "Taylor",
    "Uniform",
    "Unstructured",
    "Wanda",
    "dependencies",
    "prune_channels",
    "prune_iteratively",
    "prune_layers",
]
