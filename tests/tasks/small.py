"""Tiny models with tokenizers of their own, whose random weights write texts that differ and end."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from regard.checkpoints.files import save_tensors, write_json_atomic
from regard.config import Kind, ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.models.transformer import build
from regard.tasks.base import Parts

TEXT = """the animal didn't cross the street because it was too tired
the animal didn't cross the street because it was too wide
l'animal n'a pas traversé la rue parce qu'il était trop fatigué
a dog runs, a cat sleeps; two birds sing.\tEnd!"""
SENTENCES = (
    "a dog runs",
    "the animal didn't cross the street because it was too tired",
    "two birds sing.",
    "a",
    "the cat was too wide, the street too tired",
    "la rue était fatigué",
    "it was too wide because it was too wide because it was tired",
    "the street",
)


@cache
def tokenizer(kind: str = "char") -> Tokenizer:
    """Give a tokenizer of this text; the char one has a line feed."""
    return Tokenizer.train(TEXT.split("\n") if kind == "bpe" else [TEXT], kind=kind, vocab_size=300)


def make_parts(kind: Kind, *, words: str = "char", seed: int = 3, extra: int = 0, **changes: Any) -> Parts:
    """Make a tiny model; `extra` ids lie beyond the tokenizer's."""
    tokens = tokenizer(words)
    values: dict[str, Any] = {
        "width": 16, "num_layers": 2, "num_heads": 2, "context": 64, "dropout": 0.0, "tie_embeddings": False,
        **changes,
    }  # fmt: skip
    config = ModelConfig(
        kind=kind, vocab_size=tokens.vocab_size + extra, pad_id=0, bos_id=1, eos_id=2, **values
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build(config).eval()
        with torch.no_grad():
            for weight in module.parameters():
                if weight.ndim > 1:  # fresh weights say much the same after every prefix
                    weight.normal_(std=0.5)
    return Parts(module, tokens, config)


@cache
def translator() -> Parts:
    """Give a translator, shared between tests."""
    return make_parts("encoder-decoder")


@cache
def writer(words: str = "char", position: str = "rotary") -> Parts:
    """Give a decoder of 32 tokens of context, shared between tests."""
    return make_parts("decoder", words=words, position=position, context=32)


def save(parts: Parts, folder: Path) -> Path:
    """Write a model directory."""
    folder.mkdir(parents=True)
    write_json_atomic(folder / "config.json", {"model_type": "regard", **parts.config.to_dict()})
    parts.tokenizer.save(folder)
    save_tensors(folder / "model.safetensors", parts.module.state_dict())
    return folder
