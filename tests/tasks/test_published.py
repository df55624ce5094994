"""The verbs with published models: the frames they expect, and the search they were published with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.small import SENTENCES, TEXT
from tokenizers.processors import TemplateProcessing

import regard
from regard.errors import ConfigError

transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 100, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
LANGUAGES = ["en_XX", "ro_RO"]


def words(frame: str) -> regard.Tokenizer:
    """Train a tokenizer with language codes that puts a frame of special tokens around a text."""
    tokenizer = regard.Tokenizer.train(TEXT.split("\n"), kind="bpe", vocab_size=300)
    backend = tokenizer._backend
    backend.add_special_tokens(LANGUAGES)
    names = [name for name in frame.split() if not name.startswith("$")]
    backend.post_processor = TemplateProcessing(
        single=frame, special_tokens=[(name, backend.token_to_id(name)) for name in names]
    )
    return regard.Tokenizer(
        backend, specials={"pad": "<pad>", "bos": "<bos>", "eos": "<eos>", "unk": "<unk>"}
    )


def published(folder: Path, name: str, tokenizer: regard.Tokenizer, **settings: Any) -> Any:
    config = getattr(transformers, f"{name}Config")(
        vocab_size=tokenizer.vocab_size, decoder_start_token_id=2, **{**SIZES, **settings}
    )
    torch.manual_seed(1)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.5)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    return model


@torch.no_grad()
def theirs(model: Any, tokenizer: regard.Tokenizer, texts: list[str], **settings: Any) -> list[str]:
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer.frame(tokenizer.encode(text), **settings.pop("frame", {}))[0]])
        never = [[i] for i in (*sorted(tokenizer.special_ids - {2}),)]
        out = model.generate(ids, max_new_tokens=20, bad_words_ids=never, **settings)
        found.append(tokenizer.decode(out[0].tolist()))
    return found


@pytest.mark.parametrize("frame", ["<bos> $A <eos>", "$A <eos>"])
def test_translate_frames_sources_and_searches_as_published(tmp_path: Path, frame: str) -> None:
    tokenizer = words(frame)
    model = published(tmp_path, "Bart", tokenizer)
    path = tmp_path / "generation_config.json"
    said = {**json.loads(path.read_text()), "num_beams": 3, "length_penalty": 2.0, "no_repeat_ngram_size": 3}
    path.write_text(json.dumps({**said, "early_stopping": True, "forced_bos_token_id": 1}))
    expected = theirs(
        transformers.BartForConditionalGeneration.from_pretrained(tmp_path).eval(), tokenizer, list(SENTENCES)
    )
    ours = regard.load(tmp_path)
    found = ours.translate(list(SENTENCES), max_tokens=20)
    assert [result.text for result in found] == expected
    assert found[0].source_tokens == len(tokenizer.frame(tokenizer.encode(SENTENCES[0]))[0])
    greedy = ours.translate(list(SENTENCES), beams=1, max_tokens=20)
    assert [result.text for result in greedy] != expected
    assert model.config.vocab_size == ours.config.vocab_size


@pytest.mark.parametrize(
    ("frame", "place"),  # mBART of 2020 starts with the language, mBART-50 has it after a start token
    [("$A <eos> en_XX", "decoder_start_token_id"), ("en_XX $A <eos>", "forced_bos_token_id")],
)
def test_languages_frame_the_source_and_begin_the_target(tmp_path: Path, frame: str, place: str) -> None:
    tokenizer = words(frame)
    model = published(tmp_path, "MBart", tokenizer)
    target = tokenizer.token_to_id("ro_RO")
    expected = theirs(model, tokenizer, list(SENTENCES[:4]), num_beams=1, **{place: target})
    ours = regard.load(tmp_path)
    settings: dict[str, Any] = {"beams": 1, "max_tokens": 20, "target_language": "ro_RO"}
    found = ours.translate(list(SENTENCES[:4]), source_language="en_XX", **settings)
    assert [result.text for result in found] == expected
    other = ours.translate(list(SENTENCES[:4]), source_language="ro_RO", **settings)
    assert [result.text for result in other] != expected
    with pytest.raises(ConfigError, match=r"'ro_RX'.*did you mean 'ro_RO'"):
        ours.translate(list(SENTENCES[:4]), source_language="ro_RX", **settings)
    with pytest.raises(ConfigError, match="did you mean 'ro_RO'"):
        ours.translate("a dog", target_language="ro_RX")
    with pytest.raises(ConfigError, match="'dog' is not one of this tokenizer's 2 codes"):
        ours.translate("a dog", target_language="dog")


def two_ended(tokenizer: regard.Tokenizer) -> Any:
    """Make a Llama of random weights, which ends a text with either of two tokens."""
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=64, bos_token_id=1, eos_token_id=[2, 9],
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    return model


def test_generate_frames_its_prompt(tmp_path: Path) -> None:
    tokenizer = words("<bos> $A")
    model = two_ended(tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    ours = regard.load(tmp_path)
    for text in ("", "a dog"):
        ids = torch.tensor([tokenizer.frame(tokenizer.encode(text))[0]])
        never = [[i] for i in sorted(tokenizer.special_ids - {2, 9})]
        with torch.no_grad():
            out = model.generate(ids, max_new_tokens=12, do_sample=False, bad_words_ids=never, pad_token_id=0)
        new = [i for i in out[0, ids.shape[1] :].tolist() if i not in (2, 9)]
        assert ours.generate(text, temperature=0.0, max_tokens=12).text == tokenizer.decode(new)
