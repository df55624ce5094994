"""`embed`: the pooling of sentence encoders written out on published states, search, and a matrix on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.checkpoints.test_sentences import MODULES, POOLING, switched, write
from tests.tasks.readers import SIZES, bert, framed_tokenizer, put
from tests.tasks.small import SENTENCES, make_parts, translator, writer

import regard
from regard.errors import ConfigError, DataError
from regard.tasks.embed import check_embed, embed, search, write_vectors

transformers = pytest.importorskip("transformers")


def pooled(states: torch.Tensor, pooling: str) -> np.ndarray[Any, Any]:
    """Pool the states (T, D) of one text without padding."""
    return {"mean": states.mean(0), "first": states[0], "last": states[-1]}[pooling].numpy()


@torch.no_grad()
def theirs(model: Any, tokenizer: regard.Tokenizer, text: str) -> torch.Tensor:
    return model(torch.tensor([tokenizer.frame(tokenizer.encode(text))[0]])).last_hidden_state[0]


@pytest.mark.parametrize(
    ("switch", "pooling"),
    [("mean_tokens", "mean"), ("cls_token", "first"), ("lasttoken", "last")],
)
def test_a_sentence_encoder_pools_and_normalises_as_its_folder_says(
    switch: str, pooling: str, tmp_path: Path
) -> None:
    model, tokenizer = bert(tmp_path, head="")
    normalise = pooling != "last"
    write(tmp_path, MODULES if normalise else MODULES[:2], switched(f"pooling_mode_{switch}"))
    ours = regard.load(tmp_path)
    for text, one in zip(SENTENCES, ours.embed(list(SENTENCES)), strict=True):
        expected = pooled(theirs(model, tokenizer, text), pooling)
        if normalise:
            expected = expected / np.linalg.norm(expected)
        np.testing.assert_allclose(one.vector, expected, rtol=1e-4, atol=1e-5)
        assert (one.pooling, one.normalised, one.windows) == (pooling, normalise, 1)
        assert one.tokens == len(tokenizer.encode(text)) + 2
    asked = ours.embed(SENTENCES[0], pooling="first", normalise=False)
    np.testing.assert_allclose(
        asked.vector, pooled(theirs(model, tokenizer, SENTENCES[0]), "first"), rtol=1e-4, atol=1e-5
    )


def test_the_longest_text_is_what_the_folder_says(tmp_path: Path) -> None:
    bert(tmp_path, head="")
    write(tmp_path, MODULES, POOLING, {"max_seq_length": 8, "do_lower_case": False})
    ours = regard.load(tmp_path)
    assert ours.config.context == 64
    long = "the animal didn't cross the street because it was too tired"
    with pytest.raises(DataError, match="context is 8"):
        ours.embed(long)
    found = ours.embed(long, windows=True)
    assert found.windows > 1
    assert np.linalg.norm(found.vector) == pytest.approx(1, abs=1e-5)


def test_decoders_and_encoder_decoders_read_what_they_were_made_for(tmp_path: Path) -> None:
    tokenizer = framed_tokenizer("<bos> $A")
    config = transformers.LlamaConfig(vocab_size=tokenizer.vocab_size, **SIZES)
    model = put(tmp_path / "llama", "LlamaForCausalLM", config, tokenizer).model
    found = regard.load(tmp_path / "llama").embed("a dog runs", pooling="last")
    np.testing.assert_allclose(
        found.vector, pooled(theirs(model, tokenizer, "a dog runs"), "last"), rtol=1e-4, atol=1e-5
    )
    plain = regard.Tokenizer.train(["a dog runs"], kind="bpe", vocab_size=300)
    config = transformers.GPT2Config(
        vocab_size=plain.vocab_size,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        bos_token_id=2,
        eos_token_id=2,
    )
    model = put(tmp_path / "gpt2", "GPT2LMHeadModel", config, plain).transformer
    ours = regard.load(tmp_path / "gpt2")
    found = ours.embed("a dog runs")
    np.testing.assert_allclose(
        found.vector, pooled(theirs(model, plain, "a dog runs"), "mean"), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(DataError, match="has no token, and so no vector"):
        ours.embed(["a", ""])
    tokenizer = framed_tokenizer("$A <eos>")
    config = transformers.T5Config(
        vocab_size=tokenizer.vocab_size, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, pad_token_id=0,
        decoder_start_token_id=0, eos_token_id=2,
    )  # fmt: skip
    model = put(tmp_path / "t5", "T5ForConditionalGeneration", config, tokenizer).encoder
    found = regard.load(tmp_path / "t5").embed("a dog runs")
    np.testing.assert_allclose(
        found.vector, pooled(theirs(model, tokenizer, "a dog runs"), "mean"), rtol=1e-4, atol=1e-4
    )


def test_models_of_ours_read_texts_as_they_stood_in_training() -> None:
    ids = writer().tokenizer.encode("a dog")
    for parts, framed in (
        (make_parts("encoder"), [1, *ids, 2]),
        (writer(), [2, *ids]),
        (translator(), [*ids, 2]),
    ):
        module: Any = parts.module
        with torch.no_grad():
            read = module.encode if parts.config.kind == "encoder-decoder" else module.hidden
            expected = read(torch.tensor([framed]))[0].mean(0)
        found = embed(parts, ["a dog"])[0]
        np.testing.assert_allclose(found.vector, expected.numpy(), rtol=1e-4, atol=1e-5)
        assert found.tokens == len(framed)
        assert not found.normalised


def test_neighbours_change_nothing_and_windows_are_weighted() -> None:
    parts = make_parts("encoder", context=16)
    for text, one in zip(SENTENCES, embed(parts, SENTENCES, windows=True, batch_tokens=32), strict=True):
        alone = embed(parts, [text], windows=True)[0]
        np.testing.assert_allclose(one.vector, alone.vector, rtol=1e-4, atol=1e-5)
    text = "the animal was too tired"[:20]  # 14 fit beside the frame
    ids = parts.tokenizer.encode(text)
    module: Any = parts.module
    with torch.no_grad():
        cut = [module.hidden(torch.tensor([[1, *some, 2]]))[0].mean(0) for some in (ids[:14], ids[6:])]
    found = embed(parts, [text], windows=True)[0]
    np.testing.assert_allclose(found.vector, torch.stack(cut).mean(0).numpy(), rtol=1e-4, atol=1e-5)
    assert found.windows == 2
    with pytest.raises(DataError, match=r"text 1 .* has 22 tokens; this model's context is 16"):
        embed(parts, [text])
    assert list(check_embed(parts, ["a", text])) == [1]


def test_search_finds_the_nearest_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = make_parts("encoder")
    monkeypatch.setattr("regard.tasks.embed._BLOCK", 3)
    lines = [*SENTENCES[:4], "", *SENTENCES[4:], SENTENCES[0]]
    found = search(parts, ["a dog runs", "the street"], iter(lines), top=4)
    assert [m.number for m in found[0].matches[:2]] == [1, len(lines)]
    assert found[1].matches[0].text == "the street"
    for one in found:
        query = embed(parts, [one.query], normalise=True)[0].vector
        every = {
            n: float(query @ embed(parts, [text], normalise=True)[0].vector)
            for n, text in enumerate(lines, 1)
            if text
        }
        best = sorted(every, key=lambda n: (-round(every[n], 5), n))[:4]
        assert [m.number for m in one.matches] == best
        assert [m.similarity for m in one.matches] == pytest.approx([every[n] for n in best], abs=1e-4)
    with pytest.raises(DataError, match=r"^lines.txt: line 5 \('zzz.* context is 64"):
        search(parts, ["a"], [*"abcd", "z" * 70], what="lines.txt: line")


def test_a_matrix_has_a_row_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = make_parts("encoder")
    monkeypatch.setattr("regard.tasks.embed._BLOCK", 3)
    source, target = tmp_path / "in.txt", tmp_path / "out.npy"
    source.write_text("".join(f"{text}\n" for text in SENTENCES))
    assert write_vectors(parts, source, target) == (len(SENTENCES), [])
    found = np.load(target, allow_pickle=False)
    np.testing.assert_allclose(found, [one.vector for one in embed(parts, SENTENCES)], rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="exists already"):
        write_vectors(parts, source, target)
    target.unlink()
    source.write_text("a\n" + "z" * 70 + "\nb\n")
    with pytest.raises(DataError, match=r"in.txt:2: has 72 tokens.*--skip-bad-rows"):
        write_vectors(parts, source, target)
    assert not list(tmp_path.glob("out*"))
    assert write_vectors(parts, source, target, skip_bad_rows=True) == (3, [2])
    assert np.isnan(np.load(target)).any(1).tolist() == [False, True, False]


def test_what_can_not_be_is_said(tmp_path: Path) -> None:
    parts = make_parts("encoder")
    with pytest.raises(ConfigError, match=r"pooling='meen' is not one of .* did you mean 'mean'"):
        embed(parts, ["a"], pooling="meen")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"no\.txt can't be read"):
        write_vectors(parts, tmp_path / "no.txt", tmp_path / "out.npy")
    assert embed(parts, []) == []
    labelled = make_parts("encoder", head="classify", labels=("a", "b"), pooling="last")
    assert embed(labelled, ["a"])[0].pooling == "last"
    said = replace(labelled, sentences={"pooling": "first", "normalise": True, "max_length": None})
    assert (embed(said, ["a"])[0].pooling, embed(said, ["a"])[0].normalised) == ("first", True)
    assert json.dumps(embed(said, ["a"])[0].vector.tolist())
