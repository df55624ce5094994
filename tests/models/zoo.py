"""Small models of every sort, for tests: each kind of stack, position, norm and placement of the norm."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import Any, get_args

import torch
from torch import Tensor

from regard.config import Kind, ModelConfig, NormKind, Placement, PositionKind
from regard.models.transformer import Decoder, Encoder, EncoderDecoder, build

KINDS = get_args(Kind)
POSITIONS = get_args(PositionKind)
SORTS = [
    "/".join(sort) for sort in product(KINDS, POSITIONS, get_args(NormKind), get_args(Placement))
]  # "decoder/rotary/rmsnorm/pre", ...
VOCABULARY = 23
TOLERANCE = {"atol": 3e-5, "rtol": 1e-4}


def sorts(*kinds: str) -> list[str]:
    """List the sorts of these kinds."""
    return [sort for sort in SORTS if sort.split("/")[0] in kinds]


def config(sort: str, **changes: Any) -> ModelConfig:
    """Give a small configuration of a sort, with grouped heads where positions turn queries and keys."""
    kind, position, norm, placement = sort.split("/")
    rotary = position == "rotary"
    values = {
        "vocab_size": VOCABULARY, "width": 16, "num_heads": 4, "num_layers": 2, "ffn_width": 24, "context": 24,
        "num_kv_heads": 2 if rotary else 4, "gated": rotary, "bias": not rotary, "init_std": 0.2,
        "relative_buckets": 8, "relative_distance": 12,
        # what single families have, each with one placement
        "norm_offset": 1.0 if placement == "sandwich" and norm == "rmsnorm" else 0.0,
        "norm_bias": placement != "sandwich", "first_norm": placement != "pre" or norm == "rmsnorm",
        "position_offset": 2 if placement == "post" else 0, "sinusoid_halves": placement == "pre",
        "output_scale": 0.25 if placement == "parallel" else None, "ffn_bias": placement == "sandwich",
    }  # fmt: skip
    if kind == "decoder" and position == "alibi":
        values |= {"ngrams": 3, "ngram_rows": 40}
    if placement == "sandwich" and rotary:
        values |= {"rotary_scaling": "llama3", "rotary_factor": 4.0, "rotary_context": 8}
    return ModelConfig(
        kind=kind, position=position, norm=norm, norm_placement=placement, **{**values, **changes}
    )


@lru_cache(maxsize=256)
def _model(sort: str, changes: tuple[tuple[str, Any], ...]) -> Encoder | Decoder | EncoderDecoder:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        made = build(config(sort, **dict(changes)))
        with torch.no_grad():  # norms, biases and positions at their initial values would hide mistakes
            for parameter in made.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def model(sort: str, **changes: Any) -> Any:
    """Give a small model in evaluation mode; shared between tests, so leave its weights alone."""
    return _model(sort, tuple(sorted(changes.items())))


def rows(*lengths: int, seed: int = 3) -> list[Tensor]:
    """Give texts of random tokens, each (length,)."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in lengths]


def pad(texts: list[Tensor], side: str = "right", *, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Give ids and key mask of a padded batch; the padding is id 0."""
    width = width or max(len(text) for text in texts)
    ids = torch.zeros(len(texts), width, dtype=torch.long)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for i, text in enumerate(texts):
        span = slice(0, len(text)) if side == "right" else slice(width - len(text), width)
        ids[i, span], mask[i, span] = text, True
    return ids, mask
