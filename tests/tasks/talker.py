"""A tiny decoder with a chat template, for tests of chat."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tests.tasks.small import TEXT

from regard.config import ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.models.transformer import build
from regard.tasks.base import Parts

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = ["<|im_start|>", "<|im_end|>"]


@cache
def words() -> Tokenizer:
    """Give a tokenizer with the marks of turns and a template; its own end token is another one."""
    tokenizer = Tokenizer.train([TEXT, *"usersystemassistant<|>"], kind="bpe", vocab_size=300)
    backend = tokenizer._backend
    backend.add_special_tokens(MARKS)
    specials = {"pad": "<pad>", "bos": "<bos>", "eos": "<eos>", "unk": "<unk>"}
    return Tokenizer(backend, specials=specials, chat_template=TEMPLATE)


@cache
def talker(context: int = 96, seed: int = 1, **changes: Any) -> Parts:
    """Give a decoder that talks nonsense, shared between tests."""
    config = ModelConfig(
        kind="decoder", vocab_size=words().vocab_size, width=16, num_layers=2, num_heads=2, context=context,
        pad_id=0, bos_id=1, eos_id=2, dropout=0.0, tie_embeddings=False, **changes,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build(config).eval()
        with torch.no_grad():
            for weight in module.parameters():
                if weight.ndim > 1:
                    weight.normal_(std=0.5)
    return Parts(module, words(), config)
