"""Published folders through the public face: load, info, convert, save, and what training leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny_data import TINY, write_all

import regard
from regard.cli import main
from regard.errors import CheckpointError, ConfigError, RegardError

transformers = pytest.importorskip("transformers")

WORDS = ["the dog sees a cat", "a cat likes the man", "the man sees the dog"]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 5, 12, 6, 13, 7]])


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Give the folder of a small GPT-2 with a tokenizer, as another library would save it."""
    tokenizer = regard.Tokenizer.train(WORDS, kind="bpe", vocab_size=300)
    config = transformers.GPT2Config(
        vocab_size=tokenizer.vocab_size,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    folder = tmp_path / "published"
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def their_logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()(IDS).logits


def test_one_line_loads_and_writes_text(published: Path) -> None:
    model = regard.load(published)
    assert model.family == "gpt2" and "gpt2, decoder" in repr(model)
    torch.testing.assert_close(model.logits(IDS), their_logits(published), rtol=1e-4, atol=1e-5)
    assert model.generate("the dog", max_tokens=5, seed=1).tokens == 5


def test_a_file_of_weights_is_enough_with_its_configuration(published: Path) -> None:
    whole = regard.load(published).logits(IDS)
    assert torch.equal(regard.load(published / "model.safetensors").logits(IDS), whole)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_precision_is_that_of_the_weights(published: Path, precision: str, dtype: torch.dtype) -> None:
    model = regard.load(published, precision=precision)
    assert {p.dtype for p in model.module.parameters()} == {dtype}
    torch.testing.assert_close(model.logits(IDS).float(), their_logits(published), rtol=0.1, atol=0.05)
    with pytest.raises(ConfigError, match="precision='int3' is not one of fp32, bf16, fp16"):
        regard.load(published, precision="int3")


def test_a_model_without_tokenizer_still_scores(published: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (published / name).unlink()
    model = regard.load(published)
    assert model.tokenizer is None and "no tokenizer" in repr(model)
    assert model.logits(IDS).shape[:2] == IDS.shape
    with pytest.raises(CheckpointError, match=r"no tokenizer: fetch tokenizer\.json"):
        model.generate("the dog")


def test_info_says_what_it_is_without_reading_weights(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", str(published), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["model"]["family"] == "gpt2" and said["model"]["num_layers"] == 2
    assert said["files"]["bytes"] == sum(
        t.nbytes for t in load_file(published / "model.safetensors").values()
    )
    assert said["files"]["tensors"] == "28 float32"
    assert main(["info", str(published)]) == 0
    assert "gpt2" in capsys.readouterr().out


def test_convert_writes_reads_and_compares(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = published.parent / "converted"
    assert main(["convert", str(published), str(target), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["read"] == said["written"] == "gpt2" and said["difference"] == 0.0 and said["scale"] > 0
    first, second = (load_file(folder / "model.safetensors") for folder in (published, target))
    assert first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)
    assert torch.equal(their_logits(target), their_logits(published))
    assert regard.load(target).tokenizer.encode("the dog") == regard.load(published).tokenizer.encode(
        "the dog"
    )
    assert (target / "generation_config.json").is_file()
    half = regard.convert(published, published.parent / "half", precision="bf16")
    assert 0.0 < half.difference < 0.2 * half.scale  # what the rounding lost of the fp32 weights
    assert {t.dtype for t in load_file(half.folder / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["published", "published"], "isn't empty"),
        (["published", "new", "--family", "llama"], "llama has no model with these settings"),
        (["published", "new", "--family", "gpt3"], "did you mean 'gpt2'?"),
        (["publishd", "new"], "'published'?"),
        (["published", "new", "--revision", "main"], "is for a hub id"),
    ],
)
def test_convert_refuses(
    published: Path,
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(published.parent)
    assert main(["convert", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not Path("new").exists()


def test_every_tensor_that_does_not_fit_is_listed_at_once(published: Path) -> None:
    weights = load_file(published / "model.safetensors")
    weights["extra.weight"] = weights.pop("transformer.h.0.ln_1.bias")
    weights["transformer.ln_f.weihgt"] = weights.pop("transformer.ln_f.weight")
    weights["transformer.h.1.mlp.c_fc.bias"] = torch.zeros(3)
    save_file(weights, published / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        regard.load(published)
    text = str(caught.value)
    assert "missing: transformer.h.0.ln_1.bias, transformer.ln_f.weight;" in text
    assert "extra.weight" in text
    assert "transformer.ln_f.weihgt (did you mean 'transformer.ln_f.weight'?)" in text
    assert "transformer.h.1.mlp.c_fc.bias (3,) where the model has (64,)" in text
    assert "\n" not in text


def test_tied_weights_are_stored_once_and_a_copy_that_differs_is_told(published: Path) -> None:
    weights = load_file(published / "model.safetensors")
    assert "lm_head.weight" not in weights
    before = regard.load(published)
    assert before.module.head.output.weight is before.module.embedding.weight
    weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
    save_file(weights, published / "model.safetensors")
    assert torch.equal(regard.load(published).logits(IDS), before.logits(IDS))
    weights["lm_head.weight"] += 1
    save_file(weights, published / "model.safetensors")
    with pytest.warns(UserWarning, match="lm_head.weight should be tied"):
        regard.load(published)


def test_weights_that_are_no_numbers_are_named(published: Path) -> None:
    weights = load_file(published / "model.safetensors")
    weights["transformer.h.1.ln_2.weight"][3] = float("nan")
    save_file(weights, published / "model.safetensors")
    model = regard.load(published)
    with pytest.warns(UserWarning, match=r"NaN or infinite weights in transformer\.h\.1\.ln_2\.weight"):
        model.logits(IDS)
    model.logits(IDS)  # told once


def test_keys_that_name_code_are_inert(published: Path) -> None:
    before = regard.load(published).logits(IDS)
    (published / "modeling_evil.py").write_text("raise SystemExit('run')")
    edit(published, auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"}, trust_remote_code=True)
    assert torch.equal(regard.load(published).logits(IDS), before)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_hed": 2}, "did you mean 'n_head'?"),
        ({"model_type": "gpt3"}, "did you mean 'gpt2'?"),
        ({"model_type": "wav2vec2"}, "isn't built here"),
        ({"architectures": ["GPT2DoubleHeadsModel"]}, "GPT2DoubleHeadsModel"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True isn't built"),
        ({"activation_function": "mish"}, "activation_function='mish' isn't known"),
        ({"n_embd": 10**9}, "out of range"),
        ({"n_embd": 65_000, "n_head": 65, "n_layer": 1000}, "GiB in fp32"),
        ({"n_head": 3}, "n_head=3 does not divide n_embd=16"),
        ({"vocab_size": 20}, "tokenizer has"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ({"n_layer": "two"}, "whole number"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be(published: Path, changes: dict[str, Any], said: str) -> None:
    if "n_hed" in changes:
        path = published / "config.json"
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "n_head"}))
    if "vocab_size" in changes:
        weights = load_file(published / "model.safetensors")
        weights["transformer.wte.weight"] = weights["transformer.wte.weight"][:20].clone()
        save_file(weights, published / "model.safetensors")
    edit(published, **changes)
    with pytest.raises(RegardError) as caught:
        regard.load(published)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_trained_here_opens_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_all(tmp_path))
    assert main(["train", "generate", "text.txt", "--out", "run", "--model", "gpt2", *TINY]) == 0
    config = json.loads(Path("run/config.json").read_text())
    assert config["model_type"] == "gpt2" and config["architectures"] == ["GPT2LMHeadModel"]
    ours = regard.load("run")
    with torch.no_grad():
        theirs = transformers.AutoModelForCausalLM.from_pretrained("run").eval()(IDS).logits
    torch.testing.assert_close(ours.logits(IDS), theirs, rtol=1e-4, atol=1e-5)
    theirs_tokens = transformers.AutoTokenizer.from_pretrained("run")
    assert theirs_tokens.encode("the dog", add_special_tokens=False) == ours.tokenizer.encode("the dog")
    assert main(["train", "generate", "--out", "run", "--resume", "--steps", "6"]) == 0
