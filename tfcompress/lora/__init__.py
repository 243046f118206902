"""Adapters of low rank on a frozen base, which may be held in few bits: added, trained, saved alone, merged."""

from tfcompress.lora.apply import add_lora
from tfcompress.lora.files import load, save
from tfcompress.lora.merge import merge_lora
from tfcompress.lora.names import activate, active, adapters
from tfcompress.lora.remove import remove

__all__ = ["activate", "active", "adapters", "add_lora", "load", "merge_lora", "remove", "save"]
