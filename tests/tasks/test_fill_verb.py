"""`fill`: what stands in masks, compared with the published pipeline and with the network itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.readers import SIZES, bert, fast, framed_tokenizer, put
from tests.tasks.small import make_parts, translator

import regard
from regard.errors import ConfigError, DataError
from regard.tasks.fill import Filling, check_fill, fill

pytest.importorskip("transformers")

TEXT = "the animal didn't cross the [MASK] because it was too ___"


def predicted(theirs: Any, tokenizer: regard.Tokenizer, text: str) -> Any:
    """Give the candidates of the published pipeline, a list for each mask."""
    from transformers import FillMaskPipeline

    return FillMaskPipeline(model=theirs, tokenizer=fast(tokenizer))(text, top_k=20)


def compare(found: Filling, expected: Any, tokenizer: regard.Tokenizer) -> None:
    for ours, wanted in zip(found.masks, expected, strict=True):
        kept = [one for one in wanted if one["token"] not in tokenizer.special_ids][: len(ours)]
        assert [one.id for one in ours] == [one["token"] for one in kept]
        assert [one.probability for one in ours] == pytest.approx([one["score"] for one in kept], rel=1e-4)


def test_a_published_mask_that_takes_its_space_is_read_so(tmp_path: Path) -> None:
    """RoBERTa's mask stands for a word and the space before it."""
    import transformers
    from tokenizers import Tokenizer as Backend

    own = framed_tokenizer(kind="bpe")
    state = json.loads(own._backend.to_str())
    (mask,) = [token for token in state["added_tokens"] if token["content"] == "<mask>"]
    mask["lstrip"] = True
    tokenizer = regard.Tokenizer(Backend.from_str(json.dumps(state)), specials=own.roles)
    config = transformers.RobertaConfig(vocab_size=tokenizer.vocab_size, type_vocab_size=1, **SIZES)
    theirs = put(tmp_path, "RobertaForMaskedLM", config, tokenizer)
    text = "the animal was <mask>, it was too <mask>"
    found = regard.load(tmp_path).fill(text.replace("<mask>", "[MASK]"), top=6)
    compare(found, predicted(theirs, tokenizer, text), tokenizer)
    first, second = (mask[0].token for mask in found.masks)
    assert found.text == f"the animal was{first}, it was too{second}"


def test_candidates_are_those_of_the_published_pipeline(tmp_path: Path) -> None:
    theirs, tokenizer = bert(tmp_path)
    found = regard.load(tmp_path).fill(TEXT, top=8)
    expected = predicted(theirs, tokenizer, "the animal didn't cross the <mask> because it was too <mask>")
    assert len(found.masks) == 2
    compare(found, expected, tokenizer)
    assert found.tokens == 2 + 2 + sum(
        len(tokenizer.encode(part)) for part in ("the animal didn't cross the", "because it was too")
    )


def test_the_filled_text_is_the_text_with_the_best_candidates(tmp_path: Path) -> None:
    bert(tmp_path)
    found = regard.load(tmp_path).fill("The  Cat [MASK], the street [MASK] tired", top=4)
    first, second = found.masks
    assert found.text == first[0].text == second[0].text == str(found)
    for one in second:
        joined = one.text.replace(" ", "")
        assert joined == f"TheCat{first[0].token},thestreet{one.token}tired"
        assert one.text.startswith("The  Cat")


@pytest.mark.parametrize("words", ["bpe", "char", "wordpiece", "unigram"])
def test_a_mask_of_ours_hides_what_training_hides(words: str) -> None:
    """The probabilities are those of the ids of the whole text with one of them masked."""
    from regard.data.tokenizers import Tokenizer

    parts = make_parts("encoder")
    tokenizer = Tokenizer.train(["a dog runs and a dog sings, a cat runs"] * 3, kind=words, vocab_size=300)
    parts = replace(parts, tokenizer=tokenizer, config=parts.config)
    text, hidden = ("a dog runs", " dog") if words in ("bpe", "unigram") else ("a dog runs", "dog")
    if words == "char":
        hidden = "d"
    whole = tokenizer.encode(text)
    place = tokenizer.tokens(whole).index(hidden)
    if max(tokenizer.vocab_size, *whole) > parts.config.vocab_size:
        parts = make_parts("encoder", extra=tokenizer.vocab_size)
        parts = replace(parts, tokenizer=tokenizer)
    ids = torch.tensor([[1, *whole, 2]])
    assert tokenizer.mask_id is not None
    ids[0, place + 1] = tokenizer.mask_id
    with torch.no_grad():
        expected = parts.module(ids)[0, place + 1].softmax(-1)
    found = fill(parts, [text.replace(hidden.strip(), "___", 1)], top=3)[0]
    for one in found.masks[0]:
        assert one.probability == pytest.approx(float(expected[one.id]), rel=1e-4)
        before = text[: text.index(hidden)]
        if tokenizer.id_to_token(one.id) == f"##{one.token}":
            before = before.rstrip()
        assert one.text == f"{before}{one.token}{text[text.index(hidden) + len(hidden) :]}"
    assert found.masks[0][0].probability >= found.masks[0][2].probability
    assert not {one.id for one in found.masks[0]} & tokenizer.special_ids


def test_every_spelling_is_the_mask_and_other_names_are_text() -> None:
    parts = make_parts("encoder")
    texts = ["a d[MASK]g", "a d<mask>g", "a d___g", "a d_______g"]
    first, *others = fill(parts, texts)
    assert all(one.masks[0] == first.masks[0] for one in others)
    assert first.tokens == 7
    long = fill(parts, ["a d[MASK]g <eos>"])[0]
    assert long.tokens > 7 + 1  # the name of the end token is a text of several characters
    assert long.text.endswith("g <eos>")


def test_windows_fill_where_there_is_most_context_and_refuse_without() -> None:
    parts = make_parts("encoder", context=16)
    text = "the animal was [MASK]ired and the street was wide, the [MASK]at"
    with pytest.raises(DataError, match=r"text 1 .* context is 16"):
        fill(parts, [text])
    assert "context is 16" in check_fill(parts, [text])[0]
    found = fill(parts, [text, "a d[MASK]g"], windows=True)
    assert found[0].windows > 1 and found[1].windows == 1
    assert len(found[0].masks) == 2
    # The last mask stands near the text's end: the last window holds it with all that comes before it there.
    ids = [
        *parts.tokenizer.encode(text[: -len("[MASK]at")]),
        parts.tokenizer.mask_id,
        *parts.tokenizer.encode("at"),
    ]
    with torch.no_grad():
        chances = parts.module(torch.tensor([[1, *ids[-14:], 2]]))[0, -4].softmax(-1)
    best = found[0].masks[1][0]
    assert best.probability == pytest.approx(float(chances[best.id]), rel=1e-4)


def test_a_mask_near_a_cut_is_filled_in_the_next_window() -> None:
    parts = make_parts("encoder", context=16)  # 14 tokens a window, which begin at 0, 7, ...
    text = "the animal w[MASK]s too tired to cross"
    found = fill(parts, [text], windows=True)[0]
    before, after = (parts.tokenizer.encode(part) for part in text.split("[MASK]"))
    assert len(before) == 12
    ids = [*before, parts.tokenizer.mask_id, *after]
    with torch.no_grad():
        chances = parts.module(torch.tensor([[1, *ids[7:21], 2]]))[0, 1 + 12 - 7].softmax(-1)
    for one in found.masks[0]:
        assert one.probability == pytest.approx(float(chances[one.id]), rel=1e-4)


def test_neighbours_change_nothing() -> None:
    parts = make_parts("encoder")
    texts = ["a d[MASK]g", "the animal was t[MASK]ed because it was too ti___d", "___"]
    together = fill(parts, texts, batch_tokens=40)
    for text, one in zip(texts, together, strict=True):
        alone = fill(parts, [text])[0]
        assert [[f.id for f in mask] for mask in alone.masks] == [[f.id for f in mask] for mask in one.masks]
        for a, b in zip(alone.masks, one.masks, strict=True):
            assert [f.probability for f in a] == pytest.approx([f.probability for f in b], rel=1e-4)


def test_what_can_not_be_filled_is_said() -> None:
    parts = make_parts("encoder")
    with pytest.raises(DataError, match=r"text 2 \('a dog'\) has no mask; write \[MASK\]"):
        fill(parts, ["a [MASK]", "a dog"])
    with pytest.raises(ConfigError, match="can't fill, which takes an encoder with a head"):
        fill(translator(), ["a [MASK]"])
    with pytest.raises(ConfigError, match="top=0"):
        fill(parts, [], top=0)
