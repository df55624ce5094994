"""The published families, each one literal table; a family is found by its model_type."""

from __future__ import annotations

from regard.checkpoints.families import decoders
from regard.checkpoints.tables import Family

FAMILIES: dict[str, Family] = {family.name: family for group in (decoders.ALL,) for family in group}
"""Every table, by model_type."""
