"""How long a translation may become: so many tokens for each one of its source, as the run's own targets need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from regard.checkpoints.files import read_json
from regard.tasks.base import Parts, Stores

__all__ = ["find_stretch", "length_class", "read_stretch", "usual_limit"]

_STEP, _ROOM = 16, 20


def length_class(ids: Sequence[int]) -> int:
    """Give the class of a source's length; sources of one class have one limit."""
    return -(-len(ids) // _STEP)


def usual_limit(source: Sequence[int], stretch: int) -> int:
    """Give the most tokens that a target of this source may have where nobody says how many."""
    return stretch * _STEP * length_class(source) + _ROOM


def find_stretch(stores: Stores) -> int:
    """Find how many tokens a target needs for each of its source: enough for 999 of 1000 pairs, and at least 2.

    Twice the source is enough between languages; a run that writes programs or logical forms needs more.
    """
    source, target = (np.asarray(stores[side].lengths) + 1 for side in ("source", "target"))
    needed = (target - _ROOM) / (-(-source // _STEP) * _STEP)
    return max(Parts.stretch, math.ceil(np.quantile(needed, 0.999)))


def read_stretch(folder: Path) -> int:
    """Read what a run found; of any other model the usual."""
    path = folder / "regard.json"
    record = read_json(path) if path.is_file() else {}
    found = record.get("stretch") if isinstance(record, dict) else None
    return found if type(found) is int and found >= 1 else Parts.stretch
