"""Two small trained models, published with what they must say: token for token, and number for number."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.checkpoints.oracle import states
from tokenizers import Tokenizer as Backend
from tokenizers import decoders
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from torch import Tensor

import regard
from regard.data.tokenizers import Tokenizer
from regard.nn.attention import record
from regard.nn.masks import Mask

WITHIN = 2e-6


def need(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not among the shared weights")
    return folder


@pytest.fixture
def stories(shared: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Give stories260K, and a folder in which it stands as a Llama: layers apart, rotary pairs in halves."""
    source = need(shared / "weights" / "stories260K")
    theirs = load_file(source / "stories260K.safetensors")

    def halves(weight: Tensor, heads: int) -> Tensor:
        return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)

    names = {
        "attention_norm.weight": "input_layernorm", "ffn_norm.weight": "post_attention_layernorm",
        "wq": "self_attn.q_proj", "wk": "self_attn.k_proj", "wv": "self_attn.v_proj", "wo": "self_attn.o_proj",
        "w1": "mlp.gate_proj", "w2": "mlp.down_proj", "w3": "mlp.up_proj",
    }  # fmt: skip
    ours = {
        "model.embed_tokens.weight": theirs["tok_embeddings.weight"],
        "model.norm.weight": theirs["norm.weight"],
    }
    for name, other in names.items():
        for i, weight in enumerate(theirs[name]):
            turned = halves(weight, {"wq": 8, "wk": 4}[name]) if name in ("wq", "wk") else weight
            ours[f"model.layers.{i}.{other}.weight"] = turned.clone()
    save_file(ours, tmp_path / "model.safetensors")
    settings = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 512, "hidden_size": 64,
        "intermediate_size": 172, "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10_000.0, "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    pieces = json.loads((source / "tok512.json").read_text())
    backend = Backend(
        BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True, unk_token="<unk>")
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    Tokenizer(backend, specials={"unk": "<unk>", "bos": "<s>", "eos": "</s>"}).save(tmp_path)
    return source, tmp_path


@pytest.mark.parametrize("use", ["cached", "at once"])
def test_stories260k_tells_its_story(stories: tuple[Path, Path], use: str) -> None:
    source, folder = stories
    expected = json.loads((source / "greedy_ids.json").read_text())
    model = regard.load(folder)
    assert model.config.num_parameters() == 260_032
    if use == "at once":  # every token is the likeliest after those before it
        logits = model.logits([expected])[0]
        assert logits[:-1].argmax(-1).tolist() == expected[1:]
        return
    told = model.generate("", max_tokens=len(expected) - 1, temperature=0.0)
    assert told.text == (source / "greedy.txt").read_text()


def read_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a JSON of tensors in base64; give its settings and the tensors."""
    content = json.loads(path.read_text())
    tensors = {
        name: torch.from_numpy(np.frombuffer(base64.b64decode(v["data"]), "<f4").copy()).reshape(v["shape"])
        for name, v in content.items()
        if name != "config"
    }
    return content["config"], tensors


@pytest.fixture
def sorter(shared: Path, tmp_path: Path) -> tuple[regard.Model, dict[str, Tensor]]:
    """Load gpt-nano-sort from a folder in which it stands as a GPT-2, and give what it must compute."""
    source = need(shared / "weights" / "gpt-nano-sort")
    config, weights = read_tensors(source / "gpt-nano-sort-model.json")
    # minGPT stores linear layers as (outputs, inputs), GPT-2 the other way round.
    turned = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    save_file(
        {n: w.t().contiguous() if n.endswith(turned) else w for n, w in weights.items()},
        tmp_path / "model.safetensors",
    )
    settings = {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": config["vocab_size"],
        "n_embd": config["n_embd"], "n_layer": config["n_layer"], "n_head": config["n_head"],
        "n_positions": config["block_size"], "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return regard.load(tmp_path), read_tensors(source / "gpt-nano-sort-t0-partials.json")[1]


@torch.no_grad()
def test_gpt_nano_sort_computes_every_published_number(
    sorter: tuple[regard.Model, dict[str, Tensor]],
) -> None:
    model, expected = sorter
    net: Any = model.module
    first = net.stack.blocks[0]
    modules = {
        "tok_emb": net.embedding, "ln1": first.attention_norm, "yProj": first.attention.output,
        "ln2": first.feed_forward_norm, "fc": first.feed_forward.up, "mlp": first.feed_forward.down,
        "ln_f": net.stack.norm_out, "q": first.attention.query, "k": first.attention.key, "v": first.attention.value,
    }  # fmt: skip
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda m, args, out, name=name: found.update({name: out}))
        for name, module in modules.items()
    ]
    before = first.attention.output.register_forward_pre_hook(lambda m, args: found.update(y=args[0]))
    down = first.feed_forward.down.register_forward_pre_hook(lambda m, args: found.update(gelu=args[0]))
    ids = expected["idx"].long()
    with record() as recorder:
        logits, seen = states(net.stack, lambda: net(ids))
    for hook in (*hooks, before, down):
        hook.remove()
    found["qkv"] = torch.cat([found[name] for name in ("q", "k", "v")], -1)
    for name in ("q", "k", "v"):
        found[name] = found[name].unflatten(-1, (3, 16)).transpose(1, 2)
    found |= {
        "x": seen[0],
        "block0": seen[1],
        "block1": seen[2],
        "lm_head": logits,
        "probs": logits.softmax(-1),
    }
    found["pos_emb"] = net.stack.position.embedding.weight[None]
    found["attnResid"] = found["x"] + found["yProj"]
    found["mlpResid"] = found["attnResid"] + found["mlp"]
    found["attSm"] = recorder["decoder.0"]
    places = torch.arange(11)
    found["block2"] = net.stack.blocks[2](
        seen[2], mask=Mask(causal=True), terms=net.stack.position.terms(places, places)
    )
    scores = found["q"] @ found["k"].mT / 4
    found["att"] = scores.masked_fill(torch.ones(11, 11).triu(1).bool(), -torch.inf)
    del expected["idx"]
    assert expected.keys() <= found.keys()
    for name, tensor in expected.items():
        finite = tensor.isfinite()
        assert found[name].shape == tensor.shape and torch.equal(found[name].isfinite(), finite), name
        assert float((found[name] - tensor)[finite].abs().max()) <= WITHIN, name


def test_gpt_nano_sort_sorts_everything(sorter: tuple[regard.Model, dict[str, Tensor]]) -> None:
    model, _ = sorter
    digits = torch.tensor(list(itertools.product(range(3), repeat=6)))
    ids = digits
    for _ in range(6):
        ids = torch.cat((ids, model.logits(ids)[:, -1].argmax(-1, keepdim=True)), 1)
    assert len(digits) == 729
    assert torch.equal(ids[:, 6:], digits.sort(1).values)
