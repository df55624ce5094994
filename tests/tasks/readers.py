"""Tiny published models for the verbs that read: saved by the oracle, with tokenizers that have a frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.small import TEXT
from tokenizers.processors import TemplateProcessing

import regard

LINES = TEXT.split("\n")
SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 64, "pad_token_id": 0,
}  # fmt: skip


def framed_tokenizer(
    single: str = "<bos> $A <eos>", pair: str | None = None, kind: str = "wordpiece"
) -> regard.Tokenizer:
    """Train a tokenizer that puts a frame around a text, and one around a pair."""
    backend = regard.Tokenizer.train(LINES, kind=kind, vocab_size=300)._backend
    names = ("<bos>", "<eos>")
    backend.post_processor = TemplateProcessing(
        single=single, pair=pair or "<bos> $A <eos> $B:1 <eos>:1",
        special_tokens=[(name, backend.token_to_id(name)) for name in names],
    )  # fmt: skip
    roles = {"pad": "<pad>", "bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "mask": "<mask>"}
    return regard.Tokenizer(backend, specials=roles)


def put(folder: Path, name: str, config: Any, tokenizer: regard.Tokenizer, seed: int = 1) -> Any:
    """Save one of the oracle's models with random weights that say different things, and give it."""
    import transformers

    with pytest.MonkeyPatch.context() as patch:  # some wish to be compiled, which takes seconds to import
        patch.setattr(torch, "compile", lambda *arguments, **settings: lambda function: function)
        torch.manual_seed(seed)
        model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.3)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return model


def bert(folder: Path, head: str = "ForMaskedLM", kind: str = "wordpiece", **changes: Any) -> tuple[Any, Any]:
    """Save a tiny BERT; give the oracle's model and the tokenizer."""
    import transformers

    tokenizer = framed_tokenizer(kind=kind)
    config = transformers.BertConfig(vocab_size=tokenizer.vocab_size, **{**SIZES, **changes})
    return put(folder, f"Bert{head}" if head else "BertModel", config, tokenizer), tokenizer


def fast(tokenizer: regard.Tokenizer) -> Any:
    """Give the tokenizer as the oracle's own class, for its pipelines."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._backend, pad_token="<pad>", cls_token="<bos>", sep_token="<eos>",
        unk_token="<unk>", mask_token="<mask>",
    )  # fmt: skip
