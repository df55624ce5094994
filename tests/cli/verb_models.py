"""Tiny models for the faults of the verbs: a tokenizer with many special names, models that write what they must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tests.tasks.small import TEXT, save
from tests.tasks.talker import TEMPLATE
from tokenizers.processors import TemplateProcessing

from regard.config import Kind, ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.models.transformer import build
from regard.tasks.base import Parts

CONTEXT = 160
MARKS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "[CLS]", "[SEP]", "[PAD]", "<s>", "</s>"]
MASKS = ["[MASK]", "<mask>"]
ROLES = {"pad": "<pad>", "bos": "<bos>", "eos": "<eos>", "unk": "<unk>", "mask": "<mask>"}
WRITTEN = "🦊ñ漢"  # of four, two and three bytes, no two of them the same


def tokenizer(frame: str | None = None) -> Tokenizer:
    """Train bytes and their pairs; the names are special, and may stand around texts."""
    backend = Tokenizer.train([TEXT, "user system assistant"], kind="bpe", vocab_size=330)._backend
    backend.add_special_tokens([*MARKS, MASKS[0]])
    if frame is not None:
        single = frame.format(first="$A")
        special = [(mark, backend.token_to_id(mark)) for mark in MARKS if mark in frame]
        backend.post_processor = TemplateProcessing(
            single=single, pair=f"{single} $B:1 [SEP]:1", special_tokens=special
        )
    return Tokenizer(backend, specials=ROLES, chat_template=TEMPLATE)


def make(kind: Kind, frame: str | None = None, **changes: Any) -> Parts:
    """Make a model with random weights that say different things."""
    words = tokenizer(frame)
    settings: dict[str, Any] = {"width": 32, "num_layers": 1, "num_heads": 2, "context": CONTEXT, **changes}
    config = ModelConfig(
        kind=kind, vocab_size=words.vocab_size, pad_id=0, bos_id=1, eos_id=2, dropout=0.0, position="rotary",
        tie_embeddings=False, **settings,
    )  # fmt: skip
    module = build(config).eval()
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.4)
    return Parts(module, words, config)


def scripted(kind: Kind) -> Parts:
    """Make a model that writes WRITTEN: each of its tokens follows from the one before it alone."""
    parts = make(kind)
    module: Any = parts.module
    words, config = parts.tokenizer, parts.config
    stacks = [module.encoder, module.decoder] if kind == "encoder-decoder" else [module.stack]
    chain = words.encode_part(WRITTEN, first=False)
    assert len(chain) == len(set(chain)) == len(WRITTEN.encode())
    turn = words.encode_chat([{"role": "user", "content": "a dog"}])
    with torch.no_grad():
        for stack in stacks:
            for weight in stack.blocks.parameters():
                weight.zero_()
        table = torch.nn.functional.layer_norm(module.embedding.weight, (config.width,))
        module.head.output.weight.zero_()
        for before in {turn[-1], words.encode("a dog")[-1], config.start}:
            module.head.output.weight[chain[0]] += table[before]
        for before, after in zip(chain, [*chain[1:], config.eos_id], strict=True):
            module.head.output.weight[after] += table[before]
    return parts


def save_all(folder: Path) -> None:
    """Save a model for each verb, and those that write WRITTEN."""
    framed, tags = "[CLS] {first} [SEP]", ("O", "B-PER", "I-PER")
    save(make("encoder-decoder"), folder / "both")
    save(make("decoder"), folder / "decoder")
    save(make("encoder", framed), folder / "encoder")
    save(make("encoder", framed, head="classify", labels=("good", "bad")), folder / "classify")
    save(make("encoder", framed, head="tag", labels=tags), folder / "tag")
    save(make("encoder", framed, head="span"), folder / "span")
    save(scripted("encoder-decoder"), folder / "scripted-both")
    save(scripted("decoder"), folder / "scripted-decoder")
