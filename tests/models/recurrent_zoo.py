"""Small recurrent models of every sort, for tests: each cell, kind, score and depth."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

from regard.config_recurrent import RecurrentConfig
from regard.models.transformer import build

VOCABULARY = 23
TOLERANCE = {"atol": 2e-6, "rtol": 1e-4}
FORMS: dict[str, dict[str, Any]] = {
    "decoder": {"kind": "decoder"},
    "encoder": {"kind": "encoder"},
    "cho": {"kind": "encoder-decoder"},
    "sutskever": {"kind": "encoder-decoder", "repeat_context": False},
    "additive": {"kind": "encoder-decoder", "score": "additive"},
    "dot": {"kind": "encoder-decoder", "score": "dot"},
    "general": {"kind": "encoder-decoder", "score": "general", "bidirectional": True},
    "unfed": {"kind": "encoder-decoder", "score": "general", "input_feeding": False},
}
SORTS = ["/".join(sort) for sort in product(FORMS, ("rnn", "lstm", "gru"), ("1", "2"))]
WRITERS = [sort for sort in SORTS if FORMS[sort.split("/")[0]]["kind"] == "encoder-decoder"]
LOOKERS = [sort for sort in WRITERS if not sort.startswith(("cho", "sutskever"))]


def config(sort: str, **changes: Any) -> RecurrentConfig:
    """Give a small configuration of a sort, "additive/gru/1": form, cell and number of layers."""
    form, cell, depth = sort.split("/")
    values = {**FORMS[form], "vocab_size": VOCABULARY, "width": 16, "num_layers": int(depth), "context": 24}
    return RecurrentConfig(**{**values, "cell": cell, **changes})  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def _model(sort: str, changes: tuple[tuple[str, Any], ...]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        made = build(config(sort, **dict(changes)))
        with torch.no_grad():  # biases at zero would hide mistakes
            for parameter in made.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return made.eval()


def model(sort: str, **changes: Any) -> Any:
    """Give a small model in evaluation mode; shared between tests, so leave its weights alone."""
    return _model(sort, tuple(sorted(changes.items())))


def rows(*lengths: int, seed: int = 3) -> list[Tensor]:
    """Give texts of random tokens, each (length,)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in lengths]


def pad(texts: list[Tensor], side: str = "right", width: int | None = None) -> tuple[Tensor, Tensor]:
    """Give ids and key mask of a padded batch; the padding is id 0."""
    width = width or max(len(text) for text in texts)
    ids = torch.zeros(len(texts), width, dtype=torch.long)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for i, text in enumerate(texts):
        span = slice(0, len(text)) if side == "right" else slice(width - len(text), width)
        ids[i, span], mask[i, span] = text, True
    return ids, mask
