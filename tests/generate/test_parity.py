"""Greedy and beam search give the tokens that the published implementation gives, by the files' own settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.checkpoints import test_decoders as decoders
from tests.checkpoints import test_encoder_decoders as both
from tests.checkpoints.oracle import padded

from regard.checkpoints.load import Loaded, load_model
from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.generate.config import SearchConfig
from regard.generate.published import Published, search_config
from regard.generate.search import search

DECODERS = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3")
BOTH = ("t5", "t5-v1.1", "mt5", "bart", "mbart", "marian")


def saved(case: str, folder: Path, **settings: Any) -> tuple[Any, Loaded]:
    """Make a model with these settings of generation, save it there, and load it here."""
    theirs = (decoders if case in DECODERS else both).make(case)
    with torch.no_grad():
        # Far apart, so that rounding decides nothing; the ends likely enough to come in some rows.
        theirs.get_output_embeddings().weight.mul_(2.0)
    start = 3 if case == "mbart" else theirs.generation_config.decoder_start_token_id
    # Its cache has as many layers as the encoder, which these decoders exceed.
    theirs.generation_config.use_cache = case in DECODERS
    for name, value in {"max_length": 14, "decoder_start_token_id": start, **settings}.items():
        setattr(theirs.generation_config, name, value)
    theirs.save_pretrained(folder)
    assert (folder / "generation_config.json").exists()
    return theirs, load_model(folder)


def ours(loaded: Loaded, published: Published, ids: torch.Tensor, mask: torch.Tensor, **changes: Any) -> Any:
    """Search as the files say."""
    module: Any = loaded.module
    decoder = loaded.config.kind == "decoder"
    length = ids.shape[1] if decoder else 1
    config = published.search(length, **changes)
    state = module.start(batch=len(ids)) if decoder else module.start(source=ids, source_mask=mask)
    first = ids if decoder else torch.full((len(ids), 1), published.start_id or 0)
    return search(
        state, first, key_mask=mask if decoder else None, eos_id=published.eos, pad_id=published.pad_id, config=config,
        transforms=published.transforms(config, length),
    )  # fmt: skip


def batch(loaded: Loaded, lengths: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw prompts, padded on the left, or sources, padded on the right."""
    side = "left" if loaded.config.kind == "decoder" else "right"
    return padded(lengths, side, vocabulary=49, pad=loaded.config.pad_id or 0)


@torch.no_grad()
def compare(
    theirs: Any, loaded: Loaded, folder: Path, lengths: tuple[int, ...] = (5, 2, 4, 5), **changes: Any
) -> list[bool]:
    """Assert that both write the same, and tell which rows came to an end."""
    published = search_config(folder, loaded.config)
    ids, mask = batch(loaded, lengths)
    length = ids.shape[1] if loaded.config.kind == "decoder" else 1
    expected = theirs.generate(ids, attention_mask=mask.long(), **changes)[:, length:].tolist()
    found = [row[0] for row in ours(loaded, published, ids, mask, **changes)]
    for own, row in zip(found, expected, strict=True):
        end = next((i for i, token in enumerate(row) if token in published.eos), len(row))
        assert own.ids == row[:end]
    return [own.finished for own in found]


def give_ends(theirs: Any, loaded: Loaded, folder: Path) -> list[int]:
    """Let two tokens that come in the middle of texts end them: random models end none by themselves."""
    published = search_config(folder, loaded.config)
    free = ours(loaded, replace(published, eos=()), *batch(loaded, (5, 2, 4, 5)))
    ends = sorted({free[0][0].ids[2], free[1][0].ids[4]})
    theirs.generation_config.eos_token_id = ends
    theirs.generation_config.save_pretrained(folder)
    return ends


@pytest.mark.parametrize("case", [*DECODERS, *BOTH])
def test_greedy_and_beams_with_penalties(case: str, tmp_path: Path) -> None:
    theirs, loaded = saved(case, tmp_path)
    ends = give_ends(theirs, loaded, tmp_path)
    assert search_config(tmp_path, loaded.config).eos == tuple(ends)
    ended = compare(theirs, loaded, tmp_path)
    for penalty in (0.6, 1.0, 2.0):
        ended += compare(theirs, loaded, tmp_path, num_beams=4, length_penalty=penalty)
    assert sum(ended) >= 4


SPECIAL: dict[str, tuple[str, dict[str, Any]]] = {
    "bart-summaries": ("bart", {
        "forced_bos_token_id": 0, "forced_eos_token_id": 2, "no_repeat_ngram_size": 3, "min_length": 6, "num_beams": 4,
        "early_stopping": True, "length_penalty": 2.0,
    }),
    "bart-greedy": ("bart", {"forced_bos_token_id": 0, "forced_eos_token_id": 2, "repetition_penalty": 1.3}),
    "mbart-language": ("mbart", {"forced_bos_token_id": 17, "num_beams": 5, "early_stopping": True}),
    "marian": ("marian", {
        "bad_words_ids": [[49]], "forced_eos_token_id": 0, "renormalize_logits": True, "num_beams": 6, "max_length": 9,
    }),
    "penalties-normalised": ("t5", {
        "repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "suppress_tokens": list(range(20, 40)),
        "renormalize_logits": True, "num_beams": 4,
    }),
    "first-tokens": ("llama", {"begin_suppress_tokens": list(range(25)), "min_length": 9}),
    "first-after-forced": ("bart", {"begin_suppress_tokens": list(range(25)), "forced_bos_token_id": 4}),
    "new-tokens": ("gpt2", {"max_length": 20, "max_new_tokens": 5, "min_new_tokens": 3}),
    "never": ("qwen2", {"early_stopping": "never", "num_beams": 3}),
}  # fmt: skip


@pytest.mark.parametrize("name", SPECIAL)
def test_what_published_models_ask_for(name: str, tmp_path: Path) -> None:
    case, settings = SPECIAL[name]
    theirs, loaded = saved(case, tmp_path, **settings)
    if "forced_eos_token_id" not in settings:
        give_ends(theirs, loaded, tmp_path)
    # Rows of one length: there, padding in a prompt counts as tokens already seen.
    compare(theirs, loaded, tmp_path, (4, 4, 4))


@pytest.mark.parametrize("beams", [1, 3])
def test_forbidden_runs_and_tokens(beams: int, tmp_path: Path) -> None:
    theirs, loaded = saved("gpt2", tmp_path, num_beams=beams)
    prompts = batch(loaded, (4, 4, 4))
    free = [row[0].ids for row in ours(loaded, search_config(tmp_path, loaded.config), *prompts)]
    # The model's own end token among the words is no word.
    theirs.generation_config.bad_words_ids = [free[0][1:3], free[1][2:5], [free[2][4]], [2]]
    theirs.generation_config.suppress_tokens = [free[1][0]]
    theirs.generation_config.save_pretrained(tmp_path)
    compare(theirs, loaded, tmp_path, (4, 4, 4))
    published = search_config(tmp_path, loaded.config)
    assert len(published.forbidden) == 4
    held = [row[0].ids for row in ours(loaded, published, *prompts)]
    assert all(before != after for before, after in zip(free, held, strict=True))


def write(folder: Path, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


CONFIG = ModelConfig(kind="encoder-decoder", vocab_size=50, width=16, start_id=7, eos_id=2, pad_id=1)


def test_settings_of_sampling_are_read_with_their_usual_values(tmp_path: Path) -> None:
    config = search_config(write(tmp_path, do_sample=True, temperature=0.6, top_p=0.9), CONFIG).search()
    assert (config.temperature, config.top_k, config.top_p, config.num_beams) == (0.6, 50, 0.9, 1)
    assert search_config(write(tmp_path, do_sample=True, top_k=None), CONFIG).config.top_k == 0
    rare = {"typical_p": 0.9, "epsilon_cutoff": 3e-4, "eta_cutoff": 1e-3}
    config = search_config(write(tmp_path, do_sample=True, **rare), CONFIG).config
    assert {name: getattr(config, name) for name in rare} == rare
    diverse = write(tmp_path, num_beams=6, num_beam_groups=3, diversity_penalty=0.5)
    config = search_config(diverse, CONFIG).config
    assert (config.num_beams, config.beam_groups, config.diversity_penalty) == (6, 3, 0.5)
    # Without do_sample they say nothing, in a file.
    assert search_config(write(tmp_path, temperature=0.6, top_p=0.9), CONFIG).config.temperature == 0


def test_lengths_count_the_prompt_or_only_new_tokens(tmp_path: Path) -> None:
    total = search_config(write(tmp_path, max_length=12, min_length=8), CONFIG)
    assert [(c.max_tokens, c.min_tokens) for c in (total.search(), total.search(5), total.search(9))] == [
        (11, 7), (7, 3), (3, 0),
    ]  # fmt: skip
    assert total.search(20, max_tokens=4).max_tokens == 4
    with pytest.raises(
        ConfigError, match="prompt of 12 tokens leaves no room within the model's max_length=12"
    ):
        total.search(12)
    new = search_config(write(tmp_path, max_length=12, max_new_tokens=6), CONFIG)
    assert new.search(20).max_tokens == 6
    assert search_config(write(tmp_path), CONFIG).search(20).max_tokens == SearchConfig().max_tokens


def test_a_task_has_settings_of_its_own(tmp_path: Path) -> None:
    tasks = {
        "summarization": {"prefix": "summarize: ", "max_length": 9, "min_length": 4, "num_beams": 4},
        "translation_en_to_de": {"prefix": 3},
    }
    (tmp_path / "config.json").write_text(json.dumps({"task_specific_params": tasks}))
    published = search_config(write(tmp_path, num_beams=2, no_repeat_ngram_size=3), CONFIG)
    found = published.task("summarization")
    assert found is not None
    assert (found.prefix, found.published.config.num_beams, published.config.num_beams) == (
        "summarize: ",
        4,
        2,
    )
    config = found.published.search()
    assert (config.max_tokens, config.min_tokens, config.no_repeat_ngram) == (8, 3, 3)
    assert published.task("translation_en_to_fr") is None
    with pytest.raises(ConfigError, match="translation_en_to_de: prefix=3 must be text"):
        published.task("translation_en_to_de")


def test_older_files_say_it_in_config_json(tmp_path: Path) -> None:
    old = {
        "model_type": "bart", "bos_token_id": 0, "eos_token_id": 2, "max_length": 30, "num_beams": 4,
        "no_repeat_ngram_size": 3, "early_stopping": True, "force_bos_token_to_be_generated": True,
        "length_penalty": 0.8, "repetition_penalty": None,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(old))
    published = search_config(tmp_path, CONFIG)
    assert (published.first, published.last, published.max_length, published.start_id) == (0, (2,), 30, 7)
    config = published.config
    assert (config.num_beams, config.no_repeat_ngram, config.early_stopping) == (4, 3, True)
    assert (config.length_penalty, config.repetition_penalty) == (0.8, 1.0)
    # The newer file stands for itself; only the ends that it leaves out come from the other one.
    (tmp_path / "config.json").write_text(json.dumps({**old, "eos_token_id": [2, 3]}))
    published = search_config(write(tmp_path, num_beams=2, pad_token_id=-1), CONFIG)
    assert (published.config.num_beams, published.first, published.last) == (2, None, ())
    assert (published.eos, published.pad_id) == ((2, 3), 2)


def test_what_is_not_built_is_refused_where_it_would_be_used(tmp_path: Path) -> None:
    published = search_config(write(tmp_path, penalty_alpha=0.5, top_k=4), CONFIG)
    with pytest.raises(ConfigError, match=r"generation_config.json: penalty_alpha=0.5 isn't built here"):
        published.transforms(published.search())
    with pytest.warns(UserWarning, match="penalty_alpha=0.5 isn't built here; this search goes without it"):
        published.transforms(published.search(num_beams=2))
    published = search_config(write(tmp_path, do_sample=True, num_beams=4), CONFIG)
    assert (published.config.num_beams, published.config.temperature) == (4, 0)
    with pytest.warns(UserWarning, match="do_sample with num_beams=4"):
        published.transforms(published.search())
    with pytest.raises(ConfigError, match="do_sample with num_beams=4"):
        published.transforms(published.search(num_beams=1, temperature=0.5))
    published = search_config(write(tmp_path, forced_decoder_ids=[[1, 5]], early_stopping=1), CONFIG)
    assert published.config.early_stopping is True
    with pytest.raises(ConfigError, match="forced_decoder_ids"):
        published.transforms(published.search())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_beam_groups": 2, "num_beams": 3}, "beam_groups=2 does not divide num_beams=3"),
        ({"num_beam_groups": 2, "num_beams": 4}, "beam_groups=2 and diversity_penalty=0 go together"),
        ({"do_sample": True, "typical_p": 0}, "typical_p=0 leaves no token"),
        ({"num_beams": "four"}, "num_beams='four'"),
        ({"eos_token_id": "2"}, "eos_token_id='2' must be an id"),
        ({"bad_words_ids": 3}, "bad_words_ids=3 must be a list"),
        ({"bad_words_ids": [["a"]]}, "must be an id"),
        ({"max_length": "long"}, "max_length='long'"),
        ({"renormalize_logits": "yes"}, "renormalise='yes'"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_its_name(settings: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        search_config(write(tmp_path, **settings), CONFIG)
    assert "generation_config.json: " in str(caught.value)
    assert "\n" not in str(caught.value)
