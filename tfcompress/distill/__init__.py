"""Distillation: a student learns from any teacher, beside labels or without."""

from tfcompress.distill.cache import Stored, cache_teacher
from tfcompress.distill.data_builder import CutOff, Retry, build_data
from tfcompress.distill.distiller import Distiller
from tfcompress.distill.endpoint import Endpoint
from tfcompress.distill.feature_objects import (
    AttentionMatrices,
    AttentionTransfer,
    Contrastive,
    Cosine,
    Features,
    RelationalAngle,
    RelationalDistance,
    SimilarityPreserving,
)
from tfcompress.distill.generations import born_again, through_assistants
from tfcompress.distill.layer_maps import layer_map
from tfcompress.distill.objects import DecoupledLogits, DistillationLoss, JensenShannon, Logits, ReverseLogits
from tfcompress.distill.online import MutualLearning
from tfcompress.distill.progressive import Progressive, Stage
from tfcompress.distill.prompts import Prompt, chain_of_thought, in_context, instructions
from tfcompress.distill.self_distillation import SelfDistiller
from tfcompress.distill.sequences import OnPolicy, PolicyGradient, sample, teacher_texts
from tfcompress.distill.student import blocks, student_from
from tfcompress.distill.teachers import Ensemble

__all__ = [
    "AttentionMatrices",
    "AttentionTransfer",
    "Contrastive",
    "Cosine",
    "CutOff",
    "DecoupledLogits",
    "DistillationLoss",
    "Distiller",
    "Endpoint",
    "Ensemble",
    "Features",
    "JensenShannon",
    "Logits",
    "MutualLearning",
    "OnPolicy",
    "PolicyGradient",
    "Progressive",
    "Prompt",
    "RelationalAngle",
    "RelationalDistance",
    "Retry",
    "ReverseLogits",
    "SelfDistiller",
    "SimilarityPreserving",
    "Stage",
    "Stored",
    "blocks",
    "born_again",
    "build_data",
    "cache_teacher",
    "chain_of_thought",
    "in_context",
    "instructions",
    "layer_map",
    "sample",
    "student_from",
    "teacher_texts",
    "through_assistants",
]
