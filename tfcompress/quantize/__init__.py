"""Quantization-aware training, and static quantization without training."""

from tfcompress.core.grid import Grid
from tfcompress.quantize.calibration import calibrate
from tfcompress.quantize.callbacks import FreezeBatchNorm, FreezeRanges
from tfcompress.quantize.faithful import faithful_ops
from tfcompress.quantize.qat import quantize_model
from tfcompress.quantize.quantizer import Quantizer
from tfcompress.quantize.ranges import LearnedStep, MaskedScores, MovingAverage, Percentile
from tfcompress.quantize.scheme import ActivationGrid, Scheme

__all__ = [
    "ActivationGrid",
    "FreezeBatchNorm",
    "FreezeRanges",
    "Grid",
    "LearnedStep",
    "MaskedScores",
    "MovingAverage",
    "Percentile",
    "Quantizer",
    "Scheme",
    "calibrate",
    "faithful_ops",
    "quantize_model",
]
