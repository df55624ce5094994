"""The sides of the comparisons, tiny: the same weights and the same ids give the same in every library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regard.bench import bert, decode, gpt2, marian, texts, train_tokens
from regard.bench.contest import TOLERANCES
from regard.bench.gguf_file import gguf_name
from regard.bench.made import Made
from regard.nn.packed import is_packed

GPT2 = {"seed": 0, "batch": 2, "prompt": 6, "new": 5, "vocabulary": 1001, "threads": 1}
MARIAN = {"seed": 0, "count": 6, "vocabulary": 500, "threads": 1}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a tiny model of each shape."""
    folder = tmp_path_factory.mktemp("models")
    for kind in ("gpt2", "marian", "bert"):
        Made(kind, str(folder / kind), 0, tiny=True, texts=texts.sentences(100, 0)[1]).run()
    return folder


def converted(models: Path, kind: str) -> Path:
    """Convert a model for CTranslate2, once."""
    pytest.importorskip("ctranslate2")
    folder = models / f"{kind}-ct2"
    Made(f"{kind}-ctranslate2", str(folder), 0, source=str(models / kind), detail="float32").run()
    return folder


def same(found: dict[str, Any], truth: dict[str, Any], close: float = 1e-4) -> None:
    assert found["tokens"] == truth["tokens"]
    for mine, theirs in zip(found["logits"], truth["logits"], strict=True):
        assert np.abs(np.array(mine) - np.array(theirs)).max() < close


def test_gpt2_is_the_same_in_transformers(models: Path) -> None:
    pytest.importorskip("transformers")
    ours = gpt2.Ours(folder=str(models / "gpt2"), precision="fp32", **GPT2)
    theirs = gpt2.Transformers(folder=str(models / "gpt2"), precision="fp32", **GPT2)
    truth = ours.check()
    assert [len(row) for row in truth["tokens"]] == [5, 5]
    same(theirs.check(), truth)
    assert ours.run() == theirs.run() == {"tokens": 10}


def test_gpt2_is_the_same_in_ctranslate2(models: Path) -> None:
    folder = converted(models, "gpt2")
    truth = gpt2.Ours(folder=str(models / "gpt2"), precision="fp32", **GPT2).check()
    same(gpt2.CTranslate2(folder=str(folder), precision="float32", **GPT2).check(), truth)


def test_a_prompt_is_read_alone(models: Path) -> None:
    pytest.importorskip("transformers")
    asked = {**GPT2, "new": 0, "batch": 1}
    ours = gpt2.Ours(folder=str(models / "gpt2"), precision="fp32", **asked)
    theirs = gpt2.Transformers(folder=str(models / "gpt2"), precision="fp32", **asked)
    same(theirs.check(), ours.check())
    assert ours.run() == theirs.run() == {"tokens": 6}


def test_gpt2_as_gguf_has_every_weight(models: Path) -> None:
    gguf = pytest.importorskip("gguf")
    from safetensors.numpy import load_file

    path = models / "gpt2.gguf"
    Made("gpt2-gguf", str(path), 0, source=str(models / "gpt2"), detail="F16").run()
    reader = gguf.GGUFReader(str(path))
    theirs = {tensor.name: tensor for tensor in reader.tensors}
    ours = {
        gguf_name(name): value for name, value in load_file(models / "gpt2" / "model.safetensors").items()
    }
    ours.pop(None, None)
    assert theirs.keys() == ours.keys()
    kinds = [gguf.TENSOR_NAMES[kind] for kind in gguf.MODEL_TENSORS[gguf.MODEL_ARCH.GPT2]]
    assert {name.rpartition(".")[0] for name in theirs} <= {
        kind.format(bid=i) for kind in kinds for i in (0, 1)
    }
    for name, tensor in theirs.items():
        value = ours[name].T if name.startswith("blk.") and ours[name].ndim == 2 else ours[name]
        assert np.abs(tensor.data.astype(np.float32) - value).max() < 2e-3, name
    said = {name: field.contents() for name, field in reader.fields.items() if name.startswith("gpt2.")}
    assert said["gpt2.block_count"] == 2 and said["gpt2.attention.head_count"] == 2
    assert len(reader.fields["tokenizer.ggml.tokens"].contents()) == 1001


def test_gpt2_is_nearly_the_same_in_llama_cpp(models: Path) -> None:
    pytest.importorskip("llama_cpp")
    path = models / "llama.gguf"
    Made("gpt2-gguf", str(path), 0, source=str(models / "gpt2"), detail="F16").run()
    asked = {**GPT2, "batch": 1}
    truth = gpt2.Ours(folder=str(models / "gpt2"), precision="fp32", **asked).check()
    same(gpt2.Llama(folder=str(path), **asked).check(), truth, close=5e-2)


def test_translations_are_the_same_everywhere(models: Path) -> None:
    pytest.importorskip("transformers")
    ours = marian.Ours(folder=str(models / "marian"), precision="fp32", **MARIAN)
    theirs = marian.Transformers(folder=str(models / "marian"), precision="fp32", **MARIAN)
    truth = ours.check()
    (sources, tokens), *_ = ours.batches
    assert [len(row) for row in truth["tokens"]] == [tokens] * len(sources)
    same(theirs.check(), truth)
    assert ours.run() == theirs.run() == {"sentences": 6, "tokens": 6 * tokens}
    folder = converted(models, "marian")
    same(marian.CTranslate2(folder=str(folder), precision="float32", **MARIAN).check(), truth)


@pytest.mark.parametrize("kind", ["gpt2", "marian"])
def test_coarser_weights_are_the_same_model(models: Path, kind: str) -> None:
    side, asked = (gpt2.Ours, GPT2) if kind == "gpt2" else (marian.Ours, MARIAN)
    truth = side(folder=str(models / kind), precision="fp32", **asked).check()
    found = {
        precision: side(folder=str(models / kind), precision=precision, **asked)
        for precision in ("int8", "int4")
    }
    assert all(is_packed(one.module) for one in found.values())
    apart = {precision: decode.apart(one.check(), truth) or 0.0 for precision, one in found.items()}
    assert all(0 < apart[precision] < TOLERANCES[precision] for precision in found)
    assert apart["int8"] < apart["int4"]


@pytest.mark.parametrize(
    ("shape", "peers"),
    [
        ("train-base", ("transformers", "torch.nn.Transformer")),
        ("train-gpt2", ("transformers", "torch.nn.TransformerEncoder")),
    ],
)
def test_every_side_trains_a_like_model_on_the_same_words(
    shape: str, peers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")  # a side sets it for its own process
    threads = torch.get_num_threads()
    found = {}
    for name in ("ours", *peers):
        side = train_tokens.Side(name=name, shape=shape, seed=1, steps=2, threads=threads, tiny=True)
        before = [p.detach().clone() for p in side.model.parameters()]
        found[name] = side.run()
        moved = [not torch.equal(p, old) for p, old in zip(side.model.parameters(), before, strict=True)]
        assert sum(moved) > 0.9 * len(moved)
    truth = found["ours"]
    assert truth["tokens"] == 64 or shape == "train-base"
    for one in found.values():
        assert (one["tokens"], one["operations"]) == (truth["tokens"], truth["operations"])
        # Apart from learned places, of which not all have as many, they are the same size.
        assert one["parameters"] == pytest.approx(truth["parameters"], rel=0.1)
        assert abs(one["loss"] - np.log(side.shape.vocabulary)) < 1  # nothing is known yet


def test_labels_are_the_same_as_the_pipelines(models: Path) -> None:
    pytest.importorskip("transformers")
    asked: dict[str, Any] = {
        "folder": str(models / "bert"), "seed": 0, "count": 7, "precision": "fp32", "threads": 1
    }  # fmt: skip
    ours, theirs = bert.Ours(**asked), bert.Transformers(**asked)
    found, truth = ours.check()["scores"], theirs.check()["scores"]
    assert len(set(truth)) > 1
    assert np.abs(np.array(found) - np.array(truth)).max() < 1e-5
    assert ours.run() == theirs.run() == {"sentences": 7}


def test_what_is_there_is_not_made_again(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gpt2"
    folder.mkdir()
    Made("gpt2", str(folder), 0, tiny=True).run()
    assert not list(folder.iterdir())
    Made("gpt2", str(tmp_path / "again"), 0, tiny=True).run()
    mine, other = (path / "model.safetensors" for path in (tmp_path / "again", models / "gpt2"))
    assert mine.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("transformer.wte.weight", "token_embd.weight"),
        ("h.11.mlp.c_proj.bias", "blk.11.ffn_down.bias"),
        ("transformer.h.0.ln_1.weight", "blk.0.attn_norm.weight"),
        ("transformer.h.0.attn.bias", None),
        ("lm_head.weight", None),
    ],
)
def test_names_of_gguf(ours: str, theirs: str | None) -> None:
    assert gguf_name(ours) == theirs
