"""`score`: log-probabilities written out on published logits; windows, masks, sources and targets, and characters."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.readers import SIZES, bert, framed_tokenizer, put
from tests.tasks.small import SENTENCES, make_parts, translator, writer

import regard
from regard.errors import ConfigError, DataError
from regard.tasks.score import check_score, score

transformers = pytest.importorskip("transformers")

TEXT = "the animal didn't cross"


@torch.no_grad()
def nats(logits: torch.Tensor, ids: list[int]) -> list[float]:
    """Give the log-probability of each id under the scores (T, V) at its place."""
    return logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].tolist()


@pytest.mark.parametrize("frame", ["<bos> $A", "<bos> $A <eos>"])
@torch.no_grad()
def test_a_decoder_with_a_frame_scores_from_its_first_token(frame: str, tmp_path: Path) -> None:
    words = framed_tokenizer(frame)
    config = transformers.LlamaConfig(vocab_size=words.vocab_size, **SIZES)
    model = put(tmp_path, "LlamaForCausalLM", config, words)
    found = regard.load(tmp_path).score(TEXT)
    ids = words.encode(TEXT)
    expected = nats(model(torch.tensor([[1, *ids]])).logits[0], ids)
    assert [one.logprob for one in found.token_scores] == pytest.approx(expected, rel=1e-4)
    assert found.logprob == pytest.approx(sum(expected), rel=1e-4)
    assert found.perplexity == pytest.approx(math.exp(-sum(expected) / len(ids)), rel=1e-4)
    assert found.bits_per_character == pytest.approx(-sum(expected) / math.log(2) / len(TEXT), rel=1e-4)
    assert (found.scored, found.tokens, found.way) == (len(ids), len(ids) + 1, "causal")
    # The model's own loss is the same mean.
    labels = torch.tensor([[-100, *ids]])
    assert found.per_token is not None
    assert -found.per_token == pytest.approx(
        float(model(torch.tensor([[1, *ids]]), labels=labels).loss), rel=1e-4
    )


@pytest.mark.parametrize("bos", [2, None])
def test_without_a_token_before_it_the_first_one_is_not_scored(bos: int | None, tmp_path: Path) -> None:
    words = regard.Tokenizer.train([TEXT], kind="bpe", vocab_size=280)
    config = transformers.GPT2Config(
        vocab_size=words.vocab_size,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        bos_token_id=bos,
        eos_token_id=2,
    )
    model = put(tmp_path, "GPT2LMHeadModel", config, words)
    found = regard.load(tmp_path).score(TEXT)
    ids = words.encode(TEXT)
    with torch.no_grad():
        logits = model(torch.tensor([ids if bos is None else [bos, *ids]])).logits[0]
    expected = nats(logits, ids[1:]) if bos is None else nats(logits, ids)
    scores = [one.logprob for one in found.token_scores]
    assert (scores[0] is None) == (bos is None)
    assert [one for one in scores if one is not None] == pytest.approx(expected[: len(scores)], rel=1e-4)
    assert found.scored == len(ids) - (bos is None)
    assert [TEXT[one.start : one.end] for one in found.token_scores] == [
        one.token for one in found.token_scores
    ]
    rest = len(TEXT) - (found.token_scores[0].end if bos is None else 0)
    assert found.bits_per_character == pytest.approx(-found.logprob / math.log(2) / rest)


def test_a_decoder_of_ours_scores_after_its_end_token() -> None:
    parts = writer()
    ids = parts.tokenizer.encode("a dog")
    with torch.no_grad():
        expected = nats(parts.module(torch.tensor([[2, *ids]]))[0], ids)
    found = score(parts, ["a dog"])[0]
    assert [one.logprob for one in found.token_scores] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("stride", [None, 1, 5, 32])
def test_windows_score_each_token_once_with_what_stands_before_it(stride: int | None) -> None:
    parts = writer()  # a context of 32
    text = "the animal didn't cross the street because it was too tired, two birds sing."
    with pytest.raises(DataError, match=r"text 1 .* has 76 tokens; this model's context is 32.*--windows"):
        score(parts, [text])
    found = score(parts, [text], windows=True, stride=stride)[0]
    whole = [2, *parts.tokenizer.encode(text)]
    step = stride or 16
    begins = [0, *range(step, len(whole) - 1 - 32, step), len(whole) - 1 - 32]
    expected: dict[int, float] = {}
    for begin in begins:
        with torch.no_grad():
            logits = parts.module(torch.tensor([whole[begin : begin + 32]]))[0]
        for k, value in enumerate(nats(logits, whole[begin + 1 : begin + 33]), begin + 1):
            expected.setdefault(k, value)
    assert [one.logprob for one in found.token_scores] == pytest.approx(
        [expected[k] for k in range(1, len(whole))], rel=1e-3, abs=1e-4
    )
    assert (found.scored, found.windows) == (len(whole) - 1, len(begins))
    fits = text[:32]
    assert score(parts, [fits])[0].logprob == pytest.approx(
        score(parts, [fits], windows=True)[0].logprob, rel=1e-4
    )
    assert list(check_score(parts, [fits, fits + "a"])) == [1]


@torch.no_grad()
def test_a_masked_encoder_scores_each_token_given_the_rest(tmp_path: Path) -> None:
    model, words = bert(tmp_path)
    found = regard.load(tmp_path).score(TEXT)
    framed = words.frame(words.encode(TEXT))[0]
    expected = []
    for k in range(1, len(framed) - 1):
        hidden = [*framed[:k], words.mask_id, *framed[k + 1 :]]
        expected += nats(model(torch.tensor([hidden])).logits[0, k : k + 1], framed[k : k + 1])
    assert [one.logprob for one in found.token_scores] == pytest.approx(expected, rel=1e-4)
    assert (found.scored, found.tokens, found.way) == (len(expected), len(framed), "pseudo")


def test_a_long_text_of_an_encoder_is_scored_where_each_token_has_most_context() -> None:
    parts = make_parts("encoder", context=16)
    text = "a dog runs, a cat sleeps;"
    with pytest.raises(DataError, match="context is 16"):
        score(parts, [text])
    found = score(parts, [text], windows=True)[0]
    ids = parts.tokenizer.encode(text)
    assert (found.scored, found.windows) == (len(ids), 3)
    framed = [1, *ids[:14], 2]
    hidden = [*framed[:4], parts.tokenizer.mask_id, *framed[5:]]
    with torch.no_grad():
        expected = nats(parts.module(torch.tensor([hidden]))[0, 4:5], [framed[4]])
    assert found.token_scores[3].logprob == pytest.approx(expected[0], rel=1e-4)


@torch.no_grad()
def test_a_target_is_scored_given_its_source(tmp_path: Path) -> None:
    words = framed_tokenizer("<bos> $A <eos>")
    config = transformers.BartConfig(
        vocab_size=words.vocab_size, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    model = put(tmp_path, "BartForConditionalGeneration", config, words)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "forced_bos_token_id": 1}))
    ours = regard.load(tmp_path)
    source, target = words.frame(words.encode(TEXT))[0], words.encode("a dog")
    logits = model(torch.tensor([source]), decoder_input_ids=torch.tensor([[2, 1, *target]])).logits[0, 1:]
    expected = nats(logits, [*target, 2])
    found = ours.score("a dog", source=TEXT)
    assert [one.logprob for one in found.token_scores] == pytest.approx(expected, rel=1e-4)
    assert (found.scored, found.way) == (len(target) + 1, "conditional")
    assert (found.token_scores[-1].start, found.token_scores[-1].end) == (5, 5)


def test_a_translations_score_is_the_search_s() -> None:
    from regard.tasks.translate import translate

    parts = translator()
    for text, one in zip(SENTENCES, translate(parts, SENTENCES, beams=1, max_tokens=12), strict=True):
        if one.finished:
            found = score(parts, [one.text], source=text)[0]
            assert found.logprob / found.scored == pytest.approx(one.score, rel=1e-3)
            break
    else:
        raise AssertionError("no translation ended")


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_neighbours_change_nothing(kind: Any) -> None:
    parts = make_parts(kind)
    source = {"source": list(SENTENCES[::-1])} if kind == "encoder-decoder" else {}
    together = score(parts, SENTENCES, batch_tokens=100, **source)  # type: ignore[arg-type]
    for i, one in enumerate(together):
        alone = score(parts, [SENTENCES[i]], **{k: v[i] for k, v in source.items()})[0]  # type: ignore[arg-type]
        assert one.logprob == pytest.approx(alone.logprob, rel=1e-4)
        assert len(one.token_scores) == len(alone.token_scores)


def test_what_can_not_be_scored_is_said() -> None:
    empty = score(writer(), [""])[0]
    assert (empty.scored, empty.perplexity, empty.bits_per_character, empty.token_scores) == (
        0,
        None,
        None,
        (),
    )
    with pytest.raises(ConfigError, match="give the source that the texts are targets of"):
        score(translator(), ["a"])
    with pytest.raises(ConfigError, match="2 sources and 1 texts"):
        score(translator(), ["a"], source=["a", "b"])
    with pytest.raises(ConfigError, match="source has no effect"):
        score(writer(), ["a"], source="b")
    with pytest.raises(ConfigError, match="windows has no effect"):
        score(translator(), ["a"], source="b", windows=True)
    with pytest.raises(ConfigError, match="stride is for the windows of a decoder"):
        score(writer(), ["a"], stride=3)
    with pytest.raises(ConfigError, match="stride=0"):
        score(writer(), ["a"], stride=0, windows=True)
    with pytest.raises(ConfigError, match="can't score, which takes a model with a head over its vocabulary"):
        score(make_parts("encoder", head="tag", labels=("a", "b")), ["a"])
    with pytest.raises(DataError, match=r"text 1 .* has 71 tokens; this model's context is 64. Shorten it.$"):
        score(translator(), ["a"], source="z" * 70)
