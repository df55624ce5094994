"""From files to batches: tokenizers, sources, token files, objectives, batches.

    open_source(files) ── Row ──> Tokenizer ── ids ──> TokenStore ──> an objective ──> Batches ──> tensors

Nothing here knows a model. Only objectives.py and batches.py need torch; names are imported at first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Batches": "batches",
    "Classify": "objectives",
    "ClassifySeveral": "objectives",
    "DenoiseBART": "objectives",
    "DenoiseT5": "objectives",
    "Fill": "objectives",
    "Generate": "objectives",
    "Row": "sources",
    "Source": "sources",
    "Tag": "objectives",
    "TextStream": "tokenizers",
    "TokenStore": "store",
    "Tokenizer": "tokenizers",
    "Translate": "objectives",
    "label_names": "sources",
    "open_source": "sources",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
