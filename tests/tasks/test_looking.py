"""Texts on their way into a look: framed as in the verbs, each token named, words whole, every layer exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import regard
from regard.config import ModelConfig
from regard.data.tokenizers import Tokenizer
from regard.errors import CheckpointError, ConfigError, DataError
from regard.look.reading import Look
from regard.model import Model
from regard.models.transformer import build
from regard.tasks import looking
from regard.tasks.looking import read

TEXTS = [
    "The animal didn't cross the street.",
    "Ärger über 東京, naïve 🙂!",
    "it was too tired because it was late",
]


def model(kind: str, tokenizer: str = "bpe", **settings: Any) -> Model:
    torch.manual_seed(0)
    made = Tokenizer.train(TEXTS * 3, kind=tokenizer, vocab_size=350)
    config = ModelConfig(
        kind=kind, vocab_size=made.vocab_size, width=16, num_heads=2, num_layers=2, context=128, **settings
    )
    return Model(build(config).eval(), made, config)


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe", "wordpiece", "unigram"])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_tokens_and_words_cover_the_text(kind: str, tokenizer: str) -> None:
    one = model(kind, tokenizer)
    for text in TEXTS:
        look = one.look(text, TEXTS[2]) if kind == "encoder-decoder" else one.look(text)
        assert look.error < 1e-5
        for side in look.sides.values():
            assert [token for word in side.words for token in range(word.start, word.end)] == list(
                range(len(side.ids))
            )
            for token in side.tokens:
                assert token.special or token.text in (
                    side.text[token.start : token.end].strip(),
                    side.text[token.start : token.end],
                )
            spoken = "".join(word.text for word in side.words if not word.special)
            assert "".join(spoken.split()) == "".join(side.text.split())
        for name, layer in look.layers.items():
            assert layer.shape == (len(look.rows_of(name).ids), len(look.columns_of(name).ids))


def test_rows_are_found_by_words_and_say_how_they_came_about() -> None:
    look = model("encoder").look(TEXTS[2])
    side = look.sides["text"]
    with pytest.raises(ConfigError, match="'it' 2 times; say which, as in it#1"):
        look.row("encoder.1", token="it")
    first, second = side.find("it#1"), side.find("it#2")
    assert first.start < second.start
    row = look.row("encoder.1.0", token="it#2", words=True)
    exact = look.layers["encoder.1"].weights(0, slice(second.start, second.end), slice(None)).mean(0)
    sums = [float(exact[word.start : word.end].sum()) for word in side.words]
    assert row.values.tolist() == pytest.approx(sums, abs=1e-6)
    assert float(row.values.sum()) == pytest.approx(1, abs=1e-6)
    assert row.top(1)[0][1] == pytest.approx(max(sums), abs=1e-6)
    hidden = look.row(1, 0, "late", hide=["special", "first"], renormalise=True)
    assert all(not word.special and word.start for word in hidden.columns)
    assert float(hidden.values.sum()) == pytest.approx(1, abs=1e-6)
    assert "without the first token and special tokens, renormalised" in hidden.how
    assert "not renormalised" in look.row(1, 0, "late", hide=["special"]).how
    mean = look.row("encoder.1", token=3).values
    both = (look.row("encoder.1", 0, 3).values + look.row("encoder.1", 1, 3).values) / 2
    torch.testing.assert_close(mean, both)


def test_parts_of_a_matrix_in_tokens_and_in_words() -> None:
    look = model("decoder").look(TEXTS[0])
    side, layer = look.sides["text"], look.layers["decoder.0"]
    whole = layer.weights(1, slice(None), slice(None))
    part = look.weights("decoder.0", 1, rows=[2, -1], columns=slice(0, 3))
    torch.testing.assert_close(part.values, whole[[2, len(side.ids) - 1], :3])
    words = look.weights("decoder.0.1", words=True)
    assert words.rows == side.words == words.columns
    word = side.words[3]
    expected = whole[word.start : word.end].mean(0)
    sums = torch.stack([expected[w.start : w.end].sum() for w in side.words])
    torch.testing.assert_close(words.values[3], sums)


def test_who_attends_to_a_word() -> None:
    look = model("encoder-decoder").look(TEXTS[0], TEXTS[2])
    links = look.to("animal", top=3)
    assert [link.value for link in links] == sorted((link.value for link in links), reverse=True)
    for link in links:
        target = look.sides["source"].find("animal")
        row = look.layers[link.layer].weights(link.head, [link.word.start], slice(target.start, target.end))
        assert link.value == pytest.approx(float(row.sum()))
        assert link.layer.startswith(("encoder", "cross"))
    assert all(link.layer.startswith("decoder") for link in look.to("tired", side="target"))


def test_a_decoder_is_looked_at_along_what_it_generates() -> None:
    one = model("decoder")
    look = one.look("The animal", max_tokens=5)
    assert (
        look.sides["text"].text
        == "The animal" + one.generate("The animal", temperature=0.0, max_tokens=5).text
    )


def test_an_encoder_decoder_translates_where_it_is_given_no_target() -> None:
    one = model("encoder-decoder")
    side, done = one.look(TEXTS[0]).sides["target"], one.translate(TEXTS[0])
    assert side.text == done.text
    assert side.ids[1:] == done.ids


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_what_cannot_be_looked_at_is_refused(kind: str) -> None:
    one = model(kind)
    with pytest.raises(DataError, match="no text"):
        one.look("")
    with pytest.raises(DataError, match="context is 128"):
        one.look("tired " * 200, *(["tired"] if kind == "encoder-decoder" else []))
    if kind != "encoder-decoder":
        with pytest.raises(ConfigError, match="a target is for an encoder-decoder"):
            one.look("tired", "late")
    if kind != "decoder":
        with pytest.raises(ConfigError, match="max_tokens is for a decoder"):
            one.look("tired", max_tokens=3)
    look = one.look("it was late", *(["tired"] if kind == "encoder-decoder" else []))
    first = next(iter(look.layers))
    for wrong in (("encoder.9", None), (first, 2), (f"{first}.7", None), (f"{first}.x", None)):
        with pytest.raises(ConfigError):
            look.row(wrong[0], wrong[1], 0)
    with pytest.raises(ConfigError, match="no word 'horse'"):
        look.row(first, 0, "horse")
    with pytest.raises(ConfigError, match="hide takes"):
        look.row(first, 0, 0, hide=["sinks"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="there is no 99"):
        look.row(first, 0, 99)


def test_a_pair_is_read_as_one_text() -> None:
    one = model("encoder")
    reading = read(one.parts, "it was late", pair="The animal")
    side = reading.sides["text"]
    assert side.text == "it was late\nThe animal"
    assert [word.text for word in side.words if not word.special] == ["it", "was", "late", "The", "animal"]


def test_maps_are_kept() -> None:
    look = model("decoder").look(TEXTS[0])
    assert look.tiles("decoder.1.0") is look.tiles(1, 0)
    both = look.tiles(["decoder.0", "decoder.1"])
    mean = (
        sum(layer.weights(h, slice(None), slice(None)) for layer in look.layers.values() for h in (0, 1)) / 4
    )
    torch.testing.assert_close(both.window().values, mean)


def test_every_kept_step_of_a_run_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(TEXTS * 20), encoding="utf-8")
    run = tmp_path / "run"
    regard.train(
        "generate", tmp_path / "text.txt", out=run, model="nano", tokenizer="char", steps=6, save_every=2, keep=3,
        batch_tokens=256, context=64, evaluate_every=100,
    )  # fmt: skip
    found = list(regard.looks(run, "it was late"))
    assert [one.step for one in found] == [2, 4, 6]
    rows = [one.look.row("decoder.0.0", token=-1).values for one in found]
    assert not torch.equal(rows[0], rows[2])
    assert found[2].look.model == "run, step 6"
    with pytest.raises(CheckpointError, match="kept no checkpoints"):
        next(iter(regard.looks(_without(run), "it was late")))


def _without(run: Path) -> Path:
    import shutil

    shutil.rmtree(run / "checkpoints")
    return run


@pytest.mark.parametrize("max_tokens", [28, 10_000_000])
def test_a_text_leaves_room_for_what_is_written_after_it(
    max_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = model("decoder", "char")
    with pytest.raises(DataError, match="context is 128"):
        one.look("a" * 128, max_tokens=1)
    monkeypatch.setattr(looking, "generate", None)  # nothing is written before it is refused
    with pytest.raises(
        DataError, match=r"has 101 tokens, which leaves room for 27 in .* of 128; .*, give 27 or less"
    ):
        one.look("a" * 100, max_tokens=max_tokens)
    with pytest.raises(DataError, match="no room in this model's context of 128; shorten it"):
        one.look("a" * 127, max_tokens=1)


@pytest.mark.parametrize(
    ("kind", "layers", "told"),
    [
        ("decoder", ["decoder.O"], "no layer 'decoder.O'; .* did you mean 'decoder.1'"),
        ("decoder", [0, 2], r"no layer 'decoder.2'; there are decoder.0 to decoder.1.$"),
        ("encoder-decoder", ["cross.1", "cross.7"], "no layer 'cross.7'.*cross.0 to cross.1.$"),
        ("encoder", [], "name at least one"),
        ("encoder", [-1], "no layer 'encoder.-1'"),
    ],
)
def test_layers_that_are_not_there_are_refused(kind: str, layers: list[str | int], told: str) -> None:
    target = TEXTS[2] if kind == "encoder-decoder" else None
    with pytest.raises(ConfigError, match=told):
        model(kind).look(TEXTS[0], target, layers=layers)


def test_a_look_without_layers_is_none() -> None:
    with pytest.raises(ConfigError, match="needs a layer"):
        Look(model("encoder").look(TEXTS[2]).sides, {})


def test_what_a_look_is_asked_for_must_be_there() -> None:
    look = model("decoder").look("a#² it was")
    with pytest.raises(ConfigError, match=r"there are decoder.0 to decoder.1.$"):
        look.row("decoder.7")
    with pytest.raises(ConfigError, match=r"did you mean 'decoder.1'"):
        look.row("decodr.1")
    with pytest.raises(ConfigError, match="is no head"):
        look.row("decoder.0.²")
    with pytest.raises(ConfigError, match="no word 'it#²'"):
        look.sides["text"].find("it#²")
    for top in (0, -1):
        with pytest.raises(ConfigError, match=f"top={top}"):
            look.to(0, top=top)


def test_hiding_the_first_token_leaves_the_rest_of_its_word() -> None:
    look = model("encoder-decoder", "char").look("the dog", "it")
    exact = look.row("encoder.1.0", token="dog").values
    row = look.row("encoder.1.0", token="dog", words=True, hide=["first"])
    first = look.sides["source"].words[0]
    assert (first.text, first.end) == ("the", 4) and row.columns == look.sides["source"].words
    assert float(row.values[0]) == pytest.approx(float(exact[1:4].sum()))
    weights = look.weights("encoder.1.0", words=True, hide=["first"], renormalise=True).values
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    assert look.row("encoder.1.0", token=-1, hide=["first"]).columns[0].start == 1


@pytest.mark.parametrize("given", [{"source_language": "en"}, {"target_language": "fr"}])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_languages_that_would_be_ignored_are_refused(kind: str, given: dict[str, str]) -> None:
    target = TEXTS[2] if kind == "encoder-decoder" else None
    with pytest.raises(
        ConfigError, match="no language codes" if target else "languages are for an encoder-dec"
    ):
        model(kind).look(TEXTS[0], target, **given)


@pytest.mark.parametrize(
    ("name", "frame", "languages", "begin"),
    [
        ("Bart", "<bos> $A <eos>", {}, ["<eos>", "<bos>"]),
        ("MBart", "$A <eos> en_XX", {"source_language": "en_XX", "target_language": "ro_RO"}, ["ro_RO"]),
        (
            "MBart",
            "en_XX $A <eos>",
            {"source_language": "en_XX", "target_language": "ro_RO"},
            ["<eos>", "ro_RO"],
        ),
    ],
)
@pytest.mark.parametrize("target", [None, "a dog"])
def test_languages_stand_where_a_translation_has_them(
    target: str | None, name: str, frame: str, languages: dict[str, str], begin: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    from tests.tasks.test_published import published, words

    published(tmp_path, name, words(frame))
    path = tmp_path / "generation_config.json"
    if name == "Bart":
        path.write_text(json.dumps({**json.loads(path.read_text()), "forced_bos_token_id": 1}))
    one = regard.load(tmp_path)
    reading = read(one.parts, "the cat", target, **languages)
    source, written = ([t.text for t in side.tokens if t.special] for side in reading.sides.values())
    assert source == [part for part in frame.split() if part != "$A"]
    assert written[: len(begin)] == begin and reading.sides["target"].tokens[len(begin)].text not in begin
    if target is None:
        done = one.translate("the cat", **languages)
        assert list(reading.sides["target"].ids[1:]) == list(done.ids)
