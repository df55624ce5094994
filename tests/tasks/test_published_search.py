"""What a published model's files say of writing is followed: lengths, start tokens, languages; spaces stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.small import SENTENCES, TEXT
from tests.tasks.test_published import published, words
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

import regard
from regard.errors import ConfigError
from regard.generate import logits
from regard.tasks import generate as generating
from regard.tasks.writing import Writer

transformers = pytest.importorskip("transformers")


def short(folder: Path, **said: Any) -> tuple[regard.Model, Any]:
    """Give ours and theirs of a model that wants to end at once, with these settings of generation."""
    tokenizer = words("$A <eos>")
    model = published(folder, "Bart", tokenizer)
    model.final_logits_bias[0, 2] = 60.0
    model.save_pretrained(folder)
    roles = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 2}
    banned = [[i] for i in sorted(tokenizer.special_ids - {2})]
    said = {**roles, "bad_words_ids": banned, **said}
    (folder / "generation_config.json").write_text(json.dumps(said))
    theirs = transformers.BartForConditionalGeneration.from_pretrained(folder).eval()
    return regard.load(folder), theirs


@pytest.mark.parametrize(
    "said",
    [
        {"min_length": 8, "max_length": 12, "num_beams": 2},
        {"min_new_tokens": 6, "max_new_tokens": 9},
        {"decoder_start_token_id": 7, "min_length": 5, "max_length": 30},
    ],
)
def test_translate_keeps_the_lengths_and_the_start_of_the_file(tmp_path: Path, said: dict[str, Any]) -> None:
    ours, theirs = short(tmp_path, **said)
    text = SENTENCES[0]
    found, tokenizer = ours.translate(text), ours.parts.tokenizer
    ids = torch.tensor([tokenizer.frame(tokenizer.encode(text))[0]])
    with torch.no_grad():
        out = theirs.generate(ids)[0].tolist()
    assert found.tokens == len(out) - 1
    assert found.text == tokenizer.decode(out[1:])
    # What is asked for goes before the file.
    assert ours.translate(text, max_tokens=3).tokens == 3


def test_a_word_is_no_language(tmp_path: Path) -> None:
    ours, _ = short(tmp_path)
    tokenizer = ours.parts.tokenizer
    word = tokenizer.tokens(tokenizer.encode("dog"))[0]
    assert tokenizer.token_to_id(word) is not None
    with pytest.raises(ConfigError, match=f"language={word!r} is not one of this tokenizer's 2 codes"):
        ours.translate("a dog", target_language=word)


def sentence_pieces() -> regard.Tokenizer:
    """Make a tokenizer as Llama's, whose decoder takes the first space of a text away."""
    pieces = ["<unk>", "<s>", "</s>", "▁the", "▁cat", "▁sat", "▁"]
    backend = Backend(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return regard.Tokenizer(backend, specials={"unk": "<unk>", "bos": "<s>", "eos": "</s>"})


def test_the_space_after_the_prompt_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = sentence_pieces()
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=32,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    ours = regard.load(tmp_path)
    sat = tokenizer.encode("sat")[0]
    monkeypatch.setattr(generating, "_changes", lambda *given: lambda length: [logits.force([sat])])
    heard: list[str] = []
    found = ours.generate(
        "the cat", max_tokens=2, temperature=0.0, on_text=lambda number, text: heard.append(text)
    )
    assert (found.text, "".join(heard), str(found)) == (" sat sat", " sat sat", "the cat sat sat")
    assert ours.generate("the cat", max_tokens=4, temperature=0.0, stop=[" sat sat"]).text == ""
    several = ours.generate("the cat", max_tokens=2, num_beams=2, num_return=2)
    assert several.text == " sat sat" == several.candidates[0].text


def test_a_writer_shows_nothing_of_what_it_follows() -> None:
    tokenizer = regard.Tokenizer.train(TEXT.split("\n"), kind="unigram", vocab_size=300)
    before, new = tokenizer.encode("naïve é🙂"), tokenizer.encode_part("🙂 new", first=False)
    writer = Writer(tokenizer, (), None, before)
    for token in new:
        writer.add(token)
    writer.finish()
    assert writer.text == tokenizer.decode([*before, *new])[len(tokenizer.decode(before)) :]
    assert writer.text.endswith("🙂 new")
    assert writer.decode(new) == writer.text
