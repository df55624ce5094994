"""The published families, each one literal table; a family is found by its model_type."""

from __future__ import annotations

from regard.checkpoints.families import decoders, encoder_decoders, encoders, modernbert
from regard.checkpoints.tables import Family

_GROUPS = (decoders.ALL, encoder_decoders.ALL, encoders.ALL, modernbert.ALL)
FAMILIES: dict[str, Family] = {family.name: family for group in _GROUPS for family in group}
"""Every table, by model_type."""
