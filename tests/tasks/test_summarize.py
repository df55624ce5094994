"""Summaries: as the model was published to write them, and of texts longer than its context."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.small import SENTENCES, TEXT, translator, writer
from tokenizers.processors import TemplateProcessing

import regard
from regard.errors import ConfigError, DataError
from regard.tasks.summarize import check_summaries, summarize

LONG = " ".join(SENTENCES)
TASKS = {
    "summarization": {
        "prefix": "a dog ", "max_length": 14, "min_length": 6, "num_beams": 3, "length_penalty": 2.0,
        "no_repeat_ngram_size": 3, "early_stopping": True,
    },
    "translation_en_to_de": {"prefix": "two birds ", "num_beams": 2, "early_stopping": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a T5 with tasks of its own."""
    transformers = pytest.importorskip("transformers")
    tokenizer = regard.Tokenizer.train(TEXT.split("\n"), kind="bpe", vocab_size=300)
    tokenizer._backend.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 2)])
    tokenizer = regard.Tokenizer(
        tokenizer._backend, specials={"pad": "<pad>", "eos": "<eos>", "unk": "<unk>"}
    )
    config = transformers.T5Config(
        vocab_size=tokenizer.vocab_size, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, pad_token_id=0,
        eos_token_id=2, decoder_start_token_id=0, n_positions=128, task_specific_params=TASKS,
    )  # fmt: skip
    torch.manual_seed(2)
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.4)
    folder = tmp_path_factory.mktemp("t5")
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return folder


@torch.no_grad()
def theirs(folder: Path, texts: list[str], task: str, **changes: Any) -> list[str]:
    from transformers import T5ForConditionalGeneration

    model, tokenizer = (
        T5ForConditionalGeneration.from_pretrained(folder).eval(),
        regard.Tokenizer.load(folder),
    )
    settings: dict[str, Any] = {**TASKS[task], **changes}  # type: ignore[dict-item]
    prefix = settings.pop("prefix")
    never = [[i] for i in sorted(tokenizer.special_ids - {2})]
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer.frame(tokenizer.encode(prefix + text))[0]])
        found.append(tokenizer.decode(model.generate(ids, bad_words_ids=never, **settings)[0].tolist()))
    return found


def test_a_published_model_summarises_as_its_task_says(published: Path) -> None:
    model, texts = regard.load(published), list(SENTENCES)
    found = model.summarize(texts)
    assert [one.text for one in found] == theirs(published, texts, "summarization")
    assert all(5 <= one.tokens <= 13 for one in found)
    with_prefix = model.tokenizer.encode("a dog " + texts[0])  # type: ignore[union-attr]
    assert found[0].source_tokens == len(with_prefix) + 1
    changed = model.summarize(texts, beams=1, min_tokens=0, max_tokens=9, no_repeat_ngram=0)
    assert [one.text for one in changed] == theirs(
        published, texts, "summarization", num_beams=1, min_length=0, max_length=10, no_repeat_ngram_size=0,
        early_stopping=False,
    )  # fmt: skip
    plain = model.summarize(texts, prefix="")
    assert [one.text for one in plain] == theirs(published, texts, "summarization", prefix="")
    assert [one.text for one in plain] != [one.text for one in found]


def test_languages_choose_a_published_translation(published: Path) -> None:
    model, texts = regard.load(published), list(SENTENCES)
    found = model.translate(texts, source_language="en", target_language="de", max_tokens=15)
    assert [one.text for one in found] == theirs(published, texts, "translation_en_to_de", max_length=16)
    other = model.translate(texts, beams=2, max_tokens=15)
    assert [one.text for one in other] != [one.text for one in found]
    with pytest.raises(ConfigError, match=r"translate \?_to_de; it has en_to_de. Name both"):
        model.translate(texts, target_language="de")
    with pytest.raises(ConfigError, match=r"does not translate en_to_xx; it has en_to_de"):
        model.translate(texts, source_language="en", target_language="xx")
    path = published / "config.json"
    assert json.loads(path.read_text())["task_specific_params"] == TASKS


def test_a_run_of_ours_summarises_with_its_own_settings() -> None:
    found = summarize(translator(), [*SENTENCES, " "])
    assert [one.text for one in found[:-1]] == [summarize(translator(), [text])[0].text for text in SENTENCES]
    assert all(0 < one.tokens <= 16 for one in found[:-1])  # a quarter of its context of 64
    assert (found[-1].text, found[-1].tokens, found[-1].finished) == ("", 0, True)


def test_a_long_text_is_an_error_or_goes_by_windows() -> None:
    parts = translator()
    with pytest.raises(DataError, match=r"text 2 .* has \d+ tokens; this model reads at most 64.*--windows"):
        summarize(parts, ["a dog", LONG])
    assert list(check_summaries(parts, ["a dog", LONG])) == [1]
    short, long = summarize(parts, ["a dog", LONG], windows=True, max_tokens=12, beams=2)
    assert short == summarize(parts, ["a dog"], max_tokens=12, beams=2)[0]
    assert long == summarize(parts, [LONG], windows=True, max_tokens=12, beams=2, batch_tokens=1)[0]
    assert long.windows > 3
    assert long.rounds > 1
    assert len(parts.tokenizer.encode(long.text)) <= 12
    assert long.source_tokens == len(parts.tokenizer.encode(LONG)) + 1
    assert long.tokens > 12  # all that was written on the way


def test_windows_cover_the_text_and_join_their_summaries() -> None:
    from regard.generate.config import SearchConfig
    from regard.tasks.summarize import _Writing

    parts = translator()
    cut = _Writing(parts, parts, "la ", SearchConfig(), 100)._cut(LONG)
    at = 0
    for i, piece in enumerate(cut):
        place = LONG.index(piece, max(0, at - 20))
        assert place <= at, "nothing is left out"
        assert i == 0 or place < at, "windows overlap"
        assert len(parts.tokenizer.encode("la " + piece)) + 1 <= 64
        at = place + len(piece)
    assert at == len(LONG)
    joined = summarize(parts, [LONG], windows=True, max_tokens=3, beams=1)[0]
    assert joined.rounds > 1
    wide = summarize(parts, [LONG[:80]], windows=True, max_tokens=30, beams=1, min_tokens=3)[0]
    halves = [one.text.strip() for one in summarize(
        parts, _Writing(parts, parts, "", SearchConfig(), 100)._cut(LONG[:80]), max_tokens=30, beams=1, min_tokens=3
    )]  # fmt: skip
    assert (wide.windows, len(halves)) == (2, 2)
    if wide.rounds == 1:
        assert wide.text == " ".join(halves)
    else:
        assert wide.text == summarize(parts, [" ".join(halves)], max_tokens=30, beams=1, min_tokens=3)[0].text


def test_only_encoder_decoders_summarise_and_only_texts() -> None:
    with pytest.raises(DataError):
        summarize(translator(), ["a dog", 3])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"a decoder and can't summarize"):
        summarize(writer(), ["a dog"])
    with pytest.raises(ConfigError, match="min_tokens=99 exceeds max_tokens=16"):
        summarize(translator(), [], min_tokens=99)
