"""The claims by their ids; each is a file, loaded when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from regard.errors import ConfigError, suggest
from regard.lab.claim import Claim

__all__ = ["MODULES", "claims", "find"]

MODULES: Final[dict[str, str]] = {
    "L1": "l01_parallel",
    "L2": "l02_distance",
    "L3": "l03_bottleneck",
    "L4": "l04_alignment",
    "L5": "l05_order",
    "L6": "l06_linear",
    "L7": "l07_length",
    "L8": "l08_heads",
    "L9": "l09_referent",
    "L10": "l10_interpretations",
    "L11": "l11_memory",
    "L12": "l12_scale",
    "L13": "l13_pretraining",
    "L14": "l14_softmax",
}
"""The module of each claim."""


def find(name: str) -> Claim:
    """Give the claim of an id, in either case.

    Raises:
        ConfigError: there is none; with what there is.
    """
    wanted = name.strip().upper()
    if wanted not in MODULES:
        hint = suggest(wanted, MODULES) or f"choose from {', '.join(MODULES)}."
        raise ConfigError(f"{name!r} is no claim of the lab; {hint}")
    found: Claim = import_module(f"regard.lab.{MODULES[wanted]}").CLAIM
    return found


def claims() -> list[Claim]:
    """Give all claims in their order."""
    return [find(name) for name in MODULES]
