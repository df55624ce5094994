"""Conversations: which tokens are answers, and that a model learns them and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.tiny_data import sentences
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

import regard
from regard import runs
from regard.checkpoints.files import save_tensors
from regard.config import ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError
from regard.models.transformer import build
from regard.tasks.converse import encode_conversation
from regard.tasks.folders import read_run
from regard.tasks.registry import get_task
from regard.tasks.stored import open_prepared

FAST = {"precision": "fp32", "steps": 4, "evaluate_every": 2, "save_every": 2, "log_every": 1}
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "regard.tasks.ending.draw_curves", lambda *args, **kwargs: None
    )  # a picture takes as long as a run here
    return tmp_path


def chatty(folder, **changes):
    """Save a tiny decoder of ours whose tokenizer has a chat template."""
    specials = ["<pad>", "<bos>", "<eos>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>"]
    words = [*specials, "the", "a", "dog", "cat", "man", "sees", "likes", "yes", "no"]
    backend = Backend(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(specials)
    folder.mkdir()
    roles = {"pad": "<pad>", "bos": "<bos>", "eos": "<eos>", "unk": "<unk>"}
    Tokenizer(backend, specials=roles, chat_template=TEMPLATE).save(folder)
    config = ModelConfig(
        kind="decoder", vocab_size=len(words), width=16, num_heads=2, num_layers=1, context=32, **changes
    )  # fmt: skip
    torch.manual_seed(0)
    save_tensors(folder / "model.safetensors", build(config).state_dict())
    (folder / "config.json").write_text(json.dumps({"model_type": "regard", **config.to_dict()}))
    return folder


def conversation(*turns):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


def test_only_answers_are_learnt(here):
    chatty(here / "base")
    words = Tokenizer.load(here / "base")
    said = conversation("the dog sees", "yes", "a cat <|end|>", "no no")
    ids, answers = encode_conversation(words, said)
    assert [words.tokens(ids[a:b]) for a, b in answers] == [["yes", "<|end|>"], ["no", "no", "<|end|>"]]
    lines = [json.dumps({"messages": conversation(s, "yes" if "dog" in s else "no")}) for s in sentences(40)]
    (here / "chat.jsonl").write_text("\n".join([json.dumps({"messages": said}), *lines]) + "\n")
    found = runs.train(
        "chat", "chat.jsonl", start="base", out="run", lr=0.01, **{**FAST, "steps": 60, "evaluate_every": 30}
    )
    stores, _ = open_prepared(here / "run", get_task("chat"), read_run(here / "run"))
    parts = runs.load_parts("run")
    batch = (
        get_task("chat")
        .objective(stores["train"], words, parts.config, seed=0)
        .collate(np.arange(2), seed=0, epoch=0)
    )
    learnt = batch["labels"][0][batch["labels"][0] >= 0]
    assert words.tokens(learnt.tolist()) == ["yes", "<|end|>", "no", "no", "<|end|>"]
    assert batch["ids"][0, :3].tolist() == ids[:3]
    assert found.evaluation.metrics["nats"] < 0.5 < np.log(16)
    ids = words.encode_chat(conversation("the dog sees a cat"), add_generation_prompt=True)
    assert words.tokens([int(regard.load("run").logits([ids])[0, -1].argmax())]) == ["yes"]


def test_chat_without_a_template_or_an_answer_is_refused(here):
    (here / "chat.jsonl").write_text(
        "\n".join(json.dumps({"messages": conversation(s, "yes")}) for s in sentences(20)) + "\n"
    )
    with pytest.raises(ConfigError, match="chat needs a model whose tokenizer has a chat template"):
        runs.train("chat", "chat.jsonl", out="run", width=16, num_heads=2, num_layers=1, **FAST)
    (here / "bad.jsonl").write_text(json.dumps({"messages": conversation("hello")}) + "\n")
    with pytest.raises(DataError, match=r"bad.jsonl:1: there is no message of the assistant"):
        runs.train("chat", "bad.jsonl", out="run", **FAST)
    (here / "worse.jsonl").write_text('{"messages": [{"role": "user"}, "x"]}\n')
    with pytest.raises(DataError, match=r"worse.jsonl:1: message 2 is 'x'"):
        runs.train("chat", "worse.jsonl", out="run", **FAST)
