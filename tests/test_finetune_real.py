"""Two small published models learn new text from files, and stay of their family."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny_data import write_all
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from regard import runs
from regard.data.tokenizers import Tokenizer


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_all(tmp_path))
    monkeypatch.setattr(
        "regard.tasks.ending.draw_curves", lambda *args, **kwargs: None
    )  # a picture takes as long as a run here
    return tmp_path


def need(folder):
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not among the shared weights")
    return folder


def test_stories260k_learns_new_text(shared, here):
    source = need(shared / "weights" / "stories260K")
    theirs = load_file(source / "stories260K.safetensors")

    def halves(weight, heads):
        return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)

    names = {
        "attention_norm.weight": "input_layernorm", "ffn_norm.weight": "post_attention_layernorm",
        "wq": "self_attn.q_proj", "wk": "self_attn.k_proj", "wv": "self_attn.v_proj", "wo": "self_attn.o_proj",
        "w1": "mlp.gate_proj", "w2": "mlp.down_proj", "w3": "mlp.up_proj",
    }  # fmt: skip
    tensors = {
        "model.embed_tokens.weight": theirs["tok_embeddings.weight"],
        "model.norm.weight": theirs["norm.weight"],
    }
    for name, other in names.items():
        for i, weight in enumerate(theirs[name]):
            turned = halves(weight, {"wq": 8, "wk": 4}[name]) if name in ("wq", "wk") else weight
            tensors[f"model.layers.{i}.{other}.weight"] = turned.clone()
    folder = here / "stories"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    settings = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 512, "hidden_size": 64,
        "intermediate_size": 172, "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "bos_token_id": 1,
        "eos_token_id": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    pieces = json.loads((source / "tok512.json").read_text())
    backend = Backend(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True, unk_token="<unk>")
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    Tokenizer(backend, specials={"unk": "<unk>", "bos": "<s>", "eos": "</s>"}).save(folder)
    common = {"start": "stories", "precision": "fp32", "seed": 1, "batch_tokens": 512, "log_every": 1}
    before = runs.train("generate", "text.txt", out="before", lr=1e-12, steps=1, **common).evaluation.metrics
    whole = runs.train("generate", "text.txt", out="whole", steps=8, **common).evaluation.metrics
    thin = runs.train("generate", "text.txt", out="thin", steps=8, lora=4, **common).evaluation.metrics
    assert whole["nats"] < 0.9 * before["nats"]
    assert thin["nats"] < 0.95 * before["nats"]
    assert json.loads((here / "thin/config.json").read_text())["model_type"] == "llama"


def test_gpt_nano_learns_to_sort_the_other_way(shared, tmp_path, monkeypatch):
    monkeypatch.setattr("regard.tasks.ending.draw_curves", lambda *args, **kwargs: None)
    source = need(shared / "weights" / "gpt-nano-sort")
    content = json.loads((source / "gpt-nano-sort-model.json").read_text())
    config = content.pop("config")
    turned = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    tensors = {
        name: torch.from_numpy(np.frombuffer(base64.b64decode(v["data"]), "<f4").copy()).reshape(v["shape"])
        for name, v in content.items()
    }
    save_file(
        {n: w.t().contiguous() if n.endswith(turned) else w for n, w in tensors.items()},
        tmp_path / "model.safetensors",
    )
    settings = {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": config["vocab_size"],
        "n_embd": config["n_embd"], "n_layer": config["n_layer"], "n_head": config["n_head"],
        "n_positions": config["block_size"], "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    backend = Backend(models.WordLevel({"0": 0, "1": 1, "2": 2}, unk_token="0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    Tokenizer(backend, specials={}).save(tmp_path)
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 3, (300, 6), generator=draw)
    down = rows.sort(1, descending=True).values
    text = "\n".join(" ".join(map(str, [*a, *b])) for a, b in zip(rows.tolist(), down.tolist(), strict=True))
    (tmp_path / "down.txt").write_text(text + "\n")
    common = {
        "documents": "line", "start": tmp_path, "precision": "fp32", "batch_tokens": 528, "context": 11,
    }  # fmt: skip
    reading = runs.Reading(documents=common.pop("documents"))
    train = {"reading": reading, **common}
    before = runs.train("generate", tmp_path / "down.txt", out=tmp_path / "a", lr=1e-12, steps=1, **train)
    after = runs.train("generate", tmp_path / "down.txt", out=tmp_path / "b", epochs=8, **train)
    assert after.evaluation.metrics["nats"] < 0.8 * before.evaluation.metrics["nats"]
