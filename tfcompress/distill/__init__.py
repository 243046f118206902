"""Distillation: a student learns from any teacher, beside labels or without."""

from tfcompress.distill.cache import Stored, cache_teacher
from tfcompress.distill.distiller import Distiller
from tfcompress.distill.objects import (
    AttentionMatrices,
    AttentionTransfer,
    Contrastive,
    Cosine,
    DecoupledLogits,
    DistillationLoss,
    Features,
    JensenShannon,
    Logits,
    RelationalAngle,
    RelationalDistance,
    ReverseLogits,
    SimilarityPreserving,
)
from tfcompress.distill.teachers import Ensemble

__all__ = [
    "AttentionMatrices",
    "AttentionTransfer",
    "Contrastive",
    "Cosine",
    "DecoupledLogits",
    "DistillationLoss",
    "Distiller",
    "Ensemble",
    "Features",
    "JensenShannon",
    "Logits",
    "RelationalAngle",
    "RelationalDistance",
    "ReverseLogits",
    "SimilarityPreserving",
    "Stored",
    "cache_teacher",
]
