"""Distillation: a student learns from any teacher, beside labels or without."""

from tfcompress.distill.cache import Stored, cache_teacher
from tfcompress.distill.distiller import Distiller
from tfcompress.distill.generations import born_again, through_assistants
from tfcompress.distill.layer_map import layer_map
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
from tfcompress.distill.online import MutualLearning
from tfcompress.distill.progressive import Progressive, Stage
from tfcompress.distill.self_distillation import SelfDistiller
from tfcompress.distill.student import blocks, student_from
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
    "MutualLearning",
    "Progressive",
    "RelationalAngle",
    "RelationalDistance",
    "ReverseLogits",
    "SelfDistiller",
    "SimilarityPreserving",
    "Stage",
    "Stored",
    "blocks",
    "born_again",
    "cache_teacher",
    "layer_map",
    "student_from",
    "through_assistants",
]
