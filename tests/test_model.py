"""The public face: load, the verbs, logits; and every search through it with the cache as without."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.small import SENTENCES, make_parts, save, translator, writer

import regard
from regard.errors import CheckpointError, ConfigError, DataError
from regard.model import Model
from regard.tasks.base import Parts


def model_of(parts: Parts) -> Model:
    return Model(parts.module, parts.tokenizer, parts.config)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["translator", "writer"])
def test_what_was_saved_comes_back_bit_by_bit(tmp_path: Path, kind: str) -> None:
    parts = {"translator": translator, "writer": writer}[kind]()
    model = regard.load(save(parts, tmp_path / "run"))
    assert model.config == parts.config
    for (name, ours), (other, theirs) in zip(
        model.module.state_dict().items(), parts.module.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(ours, theirs)
    assert not model.module.training
    assert model.tokenizer.encode("a dog") == parts.tokenizer.encode("a dog")
    assert f"{parts.config.num_parameters():,} weights" in repr(model)


@pytest.mark.parametrize("precision", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("kind", ["translator", "writer"])
def test_less_precision_is_the_same_model_nearly(tmp_path: Path, kind: str, precision: str) -> None:
    sort: Any = "encoder-decoder" if kind == "translator" else "decoder"
    parts = make_parts(sort, width=64, num_heads=4, ffn_width=128)
    with torch.no_grad():
        for weight in parts.module.parameters():
            weight.mul_(0.2)
    exact = regard.load(save(parts, tmp_path / "run"))
    model = regard.load(tmp_path / "run", precision=precision)
    ids = [exact.tokenizer.encode(SENTENCES[1])]
    both = [ids, ids] if kind == "translator" else [ids]
    found, expected = model.logits(*both).float(), exact.logits(*both)
    lost = float((found - expected).norm() / expected.norm())
    assert 0 < lost < {"bf16": 0.02, "int8": 0.03, "int4": 0.25}[precision]
    text = model.translate("a dog", max_tokens=6) if kind == "translator" else model.generate("a dog", seed=1)
    assert len(text.text) > 0
    if precision == "bf16":
        model.save(tmp_path / "again")
        return
    with pytest.raises(ConfigError, match="packed"):
        model.save(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_precision_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'int3' is not one of fp32, bf16, fp16, int8, int4"):
        regard.load(save(writer(), tmp_path / "run"), precision="int3")


def test_one_text_gives_one_result_and_a_list_a_list() -> None:
    model = model_of(translator())
    one = model.translate("a dog", max_tokens=5)
    several = model.translate(["a dog", "a cat"], max_tokens=5)
    assert isinstance(several, list)
    assert several[0].text == one.text == str(one)
    decoder = model_of(writer())
    first = decoder.generate("a dog", max_tokens=5, seed=1)
    assert [first] == decoder.generate(["a dog"], max_tokens=5, seed=1)
    assert decoder.generate(max_tokens=5, seed=1).prompt == ""
    assert str(first) == "a dog" + first.text


POSITIONS = ["none", "sinusoidal", "learned", "rotary", "alibi", "t5"]
TRANSLATING: dict[str, dict[str, Any]] = {"greedy": {"beams": 1}, "beam": {"beams": 4, "num_return": 4}}
GENERATING: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampling": {"temperature": 1.0, "top_p": 0.9, "seed": 2},
    "penalised": {"temperature": 0.0, "repetition_penalty": 1.3, "no_repeat_ngram": 3},
}


def without_cache(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        parts.module, "start", partial(type(parts.module).start, parts.module, use_cache=False)
    )  # type: ignore[attr-defined]


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("settings", TRANSLATING.values(), ids=TRANSLATING)
def test_translating_with_the_cache_is_translating_without(
    position: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = make_parts("encoder-decoder", position=position)
    cached = model_of(parts).translate(SENTENCES, max_tokens=12, **settings)
    without_cache(parts, monkeypatch)
    for ours, theirs in zip(
        cached, model_of(parts).translate(SENTENCES, max_tokens=12, **settings), strict=True
    ):
        assert [c.text for c in ours.candidates] == [c.text for c in theirs.candidates]
        assert ours.score == pytest.approx(theirs.score, abs=1e-4)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("settings", GENERATING.values(), ids=GENERATING)
def test_generating_with_the_cache_is_generating_without(
    position: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = make_parts("decoder", position=position, context=24)
    prompts = ["a dog", "", "the animal didn't cross"]
    cached = model_of(parts).generate(prompts, max_tokens=30, **settings)
    assert len({found.text for found in cached}) > 1
    without_cache(parts, monkeypatch)
    for ours, theirs in zip(
        cached, model_of(parts).generate(prompts, max_tokens=30, **settings), strict=True
    ):
        assert (ours.text, ours.tokens, ours.windows) == (theirs.text, theirs.tokens, theirs.windows)
        assert ours.score == pytest.approx(theirs.score, abs=1e-3)


def test_logits_are_the_models_and_need_no_gradient() -> None:
    parts = writer()
    ids = [[5, 6, 7], [8, 9, 10]]
    logits = model_of(parts).logits(ids)
    assert logits.shape == (2, 3, parts.config.vocab_size)
    assert not logits.requires_grad
    assert torch.equal(logits, model_of(parts).logits(torch.tensor(ids, dtype=torch.int32)))
    torch.testing.assert_close(logits, parts.module(torch.tensor(ids)).detach())
    logits += 1  # an ordinary tensor, to do with as one likes
    two = model_of(translator()).logits([[5, 6, 7]], [[1, 8]])
    assert two.shape == (1, 2, translator().config.vocab_size)
    encoder = model_of(make_parts("encoder"))
    assert encoder.logits([[5, 6]]).shape == (1, 2, encoder.config.vocab_size)


@pytest.mark.parametrize(
    "ids",
    [[], [[]], [5, 6], [[5, 6], [7]], [[5.5, 6.0]], [[True, False]], "text", [["a"]], None, [[-1, 2]], [[5, 10**6]],
     [[2**70]], torch.zeros(2, 3), torch.zeros(1, 1, 1, dtype=torch.long), [[5] * 33]], ids=repr,
)  # fmt: skip
def test_ids_that_cannot_be_are_one_clear_line(ids: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        model_of(writer()).logits(ids)
    assert "\n" not in str(caught.value)


def test_a_target_is_for_a_model_with_one() -> None:
    with pytest.raises(ConfigError, match="is a decoder: it takes no target"):
        model_of(writer()).logits([[5]], [[5]])
    with pytest.raises(ConfigError, match="is an encoder-decoder: it needs ids of a source and of a target"):
        model_of(translator()).logits([[5]])
    with pytest.raises(ConfigError, match="2 sources and 1 targets"):
        model_of(translator()).logits([[5], [6]], [[5]])


def test_a_verb_that_the_model_cannot_do_names_the_one_it_can() -> None:
    with pytest.raises(ConfigError, match=r"it can generate\b"):
        model_of(writer()).translate("a dog")
    with pytest.raises(ConfigError, match=r"it can translate\b"):
        model_of(translator()).generate("a dog")


def test_what_is_no_text_is_said() -> None:
    for text in (3, None, b"bytes"):
        with pytest.raises(DataError, match="a text must be a string"):
            model_of(translator()).translate([text])  # type: ignore[list-item]
        with pytest.raises(DataError, match="a text must be a string"):
            model_of(writer()).generate([text])  # type: ignore[list-item]


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        regard.load(tmp_path)
    with pytest.raises(CheckpointError):
        regard.load(tmp_path / "nothing")
