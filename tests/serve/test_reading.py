from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.cli import verb_models
from tests.serve.conftest import FRAMED
from tests.tasks.small import make_parts, save

import regard
from regard.serve.app import make_app
from regard.serve.house import Settings
from regard.serve.reading_map import plane
from regard.tasks.classify import ClassifyTask

TEXT = "the animal didn't cross 🦊 the street because it was too tired"
LINES = ["a dog runs", "", "two birds sing.", "the street", "a dog runs", "a cat sleeps"]
LONG = "a dog runs and a cat sleeps " * 30  # longer than any context here


def classifier(kind: Any, labels: tuple[str, ...], **changes: Any) -> Any:
    config = make_parts(kind).config
    return make_parts(kind, **{**ClassifyTask().model_changes(config, labels), **changes})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reading")
    abc, entail = ("a", "b", "c"), ("contradiction", "neutral", "entailment")
    save(classifier("encoder", abc), folder / "encoder")
    save(classifier("decoder", abc), folder / "decoder")
    save(classifier("encoder", abc, multi_label=True), folder / "several")
    save(classifier("encoder", ("how much",)), folder / "number")
    save(classifier("encoder", entail, num_segments=2, context=256), folder / "entail")
    save(verb_models.make("encoder", FRAMED, head="classify", labels=("good", "bad")), folder / "framed")
    save(verb_models.make("encoder", FRAMED, head="tag", labels=("O", "B-PER", "I-PER")), folder / "tag")
    save(verb_models.make("encoder", FRAMED, head="span"), folder / "span")
    save(verb_models.make("encoder", FRAMED), folder / "fill")
    save(make_parts("decoder", words="bpe", context=64), folder / "writer")
    save(make_parts("encoder-decoder", words="bpe", context=64), folder / "translator")
    return folder


@pytest.fixture
def client(models: Path, tmp_path: Path) -> Iterator[TestClient]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "lines.txt").write_bytes(
        "\n".join(LINES).encode() + b"\nbr\xffken\n" + LONG.encode()
    )
    (tmp_path / "data" / "blank.txt").write_text("\n\n")
    app = make_app(Settings(runs=models, home=tmp_path / "home", data=tmp_path / "data"))
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


def ask(client: TestClient, verb: str, **asked: Any) -> dict[str, Any]:
    answer = client.post(f"/api/{verb}", json=asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(client: TestClient, verb: str, status: int = 422, **asked: Any) -> str:
    answer = client.post(f"/api/{verb}", json=asked)
    assert answer.status_code == status, answer.text
    error: str = answer.json()["error"]
    assert error and "\n" not in error
    return error


@pytest.mark.parametrize("name", ["encoder", "decoder", "several", "number", "framed"])
def test_classify_explains_what_it_says(client: TestClient, models: Path, name: str) -> None:
    found = ask(client, "classify", model=name, text=TEXT, explain=True)
    wanted = regard.load(models / name).classify(TEXT)
    assert found["labels"] == [
        {"label": c.label, "probability": pytest.approx(c.score, rel=1e-5)} for c in wanted.scores
    ]
    assert found["explained"] == wanted.label and found["unexplained"] is None
    # What is explained is the very number that was classified by.
    if name == "number":
        assert found["target"] == pytest.approx(wanted.score, rel=1e-4)
    else:
        assert found["probability"] == pytest.approx(wanted.score, rel=1e-4)
    assert found["is_log"] is (name not in ("several", "number"))
    if found["is_log"]:
        assert math.exp(found["target"]) == pytest.approx(wanted.score, rel=1e-4)
    for parts in (found["parts"], found["occlusion"]):
        assert parts and all(TEXT[one["start"] : one["end"]] == one["text"] for one in parts)
        assert {one["of"] for one in parts} == {"text"}
        assert any(abs(one["score"]) > 1e-6 for one in parts)
    covered = {i for one in found["parts"] for i in range(one["start"], one["end"])}
    assert covered >= {i for i, character in enumerate(TEXT) if not character.isspace() and character != "🦊"}


def test_occlusion_is_what_taking_a_token_away_does(client: TestClient, models: Path) -> None:
    model = regard.load(models / "encoder")
    found = ask(client, "classify", model="encoder", text="a dog runs", explain=True, label="b")
    assert found["explained"] == "b"

    def log(ids: list[int]) -> float:
        return float(model.logits([ids])[0].log_softmax(-1)[1])

    ids = [1, *model.tokenizer.encode("a dog runs"), 2]  # type: ignore[union-attr]
    mask = model.tokenizer.mask_id  # type: ignore[union-attr]
    assert mask is not None
    drops = [log(ids) - log([*ids[:i], mask, *ids[i + 1 :]]) for i in range(1, len(ids) - 1)]
    assert [one["score"] for one in found["occlusion"]] == pytest.approx(drops, abs=1e-4)


def test_a_pair_and_labels_of_ones_own(client: TestClient, models: Path) -> None:
    model = regard.load(models / "entail")
    pair = ask(client, "classify", model="entail", text="a dog", pair="a cat", explain=True)
    wanted = model.classify("a dog", pair="a cat")
    assert pair["labels"][0] == {"label": wanted.label, "probability": pytest.approx(wanted.score)}
    assert pair["probability"] == pytest.approx(wanted.score, rel=1e-4)
    texts = {"text": "a dog", "pair": "a cat"}
    assert {one["of"] for one in pair["parts"]} == {"text", "pair"}
    assert all(texts[one["of"]][one["start"] : one["end"]] == one["text"] for one in pair["parts"])

    labels = ["sport", "music"]
    own = ask(
        client, "classify", model="entail", text="a dog", labels=labels, template="It is {}.", explain=True
    )
    found = model.classify("a dog", labels=labels, template="It is {}.")
    assert [one["label"] for one in own["labels"]] == [one.label for one in found.scores]
    assert own["explained"] == found.label and {one["of"] for one in own["parts"]} == {"text"}
    entailed = model.classify("a dog", pair=f"It is {found.label}.")
    chances = {one.label: one.score for one in entailed.scores}
    assert own["probability"] == pytest.approx(chances["entailment"], rel=1e-4)


def test_what_can_not_be_explained_says_why(client: TestClient) -> None:
    long = ask(client, "classify", model="encoder", text=LONG, explain=True, windows=True)
    assert long["windows"] > 1 and long["parts"] is None and "windows" in long["unexplained"]
    empty = ask(client, "classify", model="entail", text="", pair="a", explain=True)
    assert empty["parts"] is None and empty["unexplained"]
    assert "no label 'x'" in refused(client, "classify", model="encoder", text="a", explain=True, label="x")
    assert "explain" in refused(client, "classify", model="encoder", text="a", label="a")


def test_tag_fill_answer_and_score_give_places_in_the_text_as_it_is(client: TestClient, models: Path) -> None:
    tagged = ask(client, "tag", model="tag", text=TEXT)
    assert tagged["entities"]
    assert all(TEXT[one["start"] : one["end"]] == one["text"] for one in tagged["entities"])

    text = "🦊 a <mask> runs, a ____ sleeps, [MASK]"
    filled = ask(client, "fill", model="fill", text=text, top=3)
    assert [text[one["start"] : one["end"]] for one in filled["masks"]] == ["<mask>", "____", "[MASK]"]
    wanted = regard.load(models / "fill").fill(text, top=3)
    for mask, candidates in zip(filled["masks"], wanted.masks, strict=True):
        chances = [one["probability"] for one in mask["candidates"]]
        assert (
            chances == pytest.approx([one.probability for one in candidates], rel=1e-5) and len(chances) == 3
        )
    assert filled["text"] == wanted.text
    assert "no mask" in refused(client, "fill", model="fill", text="nothing is hidden")

    answered = ask(client, "answer", model="span", text=TEXT, question="who?", top=4)
    assert len(answered["candidates"]) == 4
    assert all(TEXT[one["start"] : one["end"]] == one["text"] for one in answered["candidates"])
    assert "empty" in refused(client, "answer", model="span", text=TEXT, question=" ")

    scored = ask(client, "score", model="writer", text="a dog runs")
    assert "".join(one["text"] for one in scored["tokens"]).replace(" ", "") == "adogruns"
    assert scored["nats"] == pytest.approx(-sum(one["logprob"] for one in scored["tokens"]))
    assert scored["perplexity"] == pytest.approx(math.exp(scored["nats"] / scored["scored"]))
    given = ask(client, "score", model="translator", text="a dog", source="un chien")
    assert given["way"] == "conditional"
    assert "source" in refused(client, "score", model="translator", text="a dog")


def test_embed_lays_out_texts_and_finds_the_nearest(client: TestClient, models: Path) -> None:
    texts = ["a dog runs", "two birds sing.", "the street"]
    found = ask(client, "embed", model="writer", texts=texts, query="the street", top=2)
    assert [one["text"] for one in found["points"]] == texts
    best, second = found["nearest"]
    assert (
        best["index"] == 2 and best["score"] == pytest.approx(1, abs=1e-5) and second["score"] < best["score"]
    )
    vectors = np.stack([one.vector for one in regard.load(models / "writer").embed(texts, normalise=True)])
    centred = vectors - vectors.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    wanted = np.abs(left[:, :2] * sizes[:2])  # three points lie in a plane: all of the variance
    assert np.abs([[one["x"], one["y"]] for one in found["points"]]) == pytest.approx(wanted, abs=1e-5)
    assert "100%" in found["how"]

    file = ask(client, "embed", model="writer", file="lines.txt", query="a dog runs")
    kept = [line for line in LINES if line]
    assert [one["text"] for one in file["points"]][:-1] == kept and file["left_out"] == 2
    assert len(file["points"][-1]["text"]) == 300  # the beginning of the long line
    assert [one["index"] for one in file["nearest"][:2]] == [0, 3]  # equal ones in their order
    again = ask(client, "embed", model="writer", file="lines.txt", query="the street")
    assert again["points"] == file["points"] and again["nearest"][0]["text"] == "the street"

    alone = ask(client, "embed", model="writer", texts=["a dog"])
    assert [(one["x"], one["y"]) for one in alone["points"]] == [(0.0, 0.0)] and alone["nearest"] == []
    assert "not both" in refused(client, "embed", model="writer")
    assert "not both" in refused(client, "embed", model="writer", texts=["a"], file="lines.txt")
    assert "no line" in refused(client, "embed", model="writer", file="blank.txt")
    for name in ("../reading/writer", "no.txt", "/etc/passwd"):
        refused(client, "embed", 404, model="writer", file=name)


def test_the_plane_is_the_same_each_time_and_of_any_size() -> None:
    draw = np.random.default_rng(0)
    for shape in ((1, 5), (2, 5), (5, 1), (40, 7), (7, 40)):
        vectors = draw.normal(size=shape)
        places, share = plane(vectors)
        assert places.shape == (shape[0], 2) and 0 < share <= 1 + 1e-9
        assert np.array_equal(places, plane(vectors)[0])
        order = draw.permutation(shape[0])
        assert plane(vectors[order])[0] == pytest.approx(places[order], abs=1e-9)
    assert plane(np.ones((3, 4))) == (pytest.approx(np.zeros((3, 2))), 1.0)


def test_what_can_not_be_is_refused(client: TestClient) -> None:
    for verb in ("classify", "tag", "fill", "embed", "answer", "score"):
        more: dict[str, Any] = {"question": "?"} if verb == "answer" else {}
        given = {"texts": ["a"]} if verb == "embed" else {"text": "a"}
        refused(client, verb, 404, model="no-such", **given, **more)
        refused(client, verb, 404, model="../reading/writer", **given, **more)
        refused(client, verb, model="writer", **given, **more, unknown=1)
        refused(client, verb, model="", **given, **more)
        refused(client, verb, model="writer")
        refused(client, verb, model="writer", text=5, texts="a", **more)
    assert "classify" in refused(client, "classify", model="writer", text="a")
    assert "tag" in refused(client, "tag", model="writer", text="a")
    assert "context" in refused(client, "classify", model="encoder", text=LONG)
    for top in (0, -1, 101, 1e300, "x"):
        refused(client, "fill", model="fill", text="___", top=top)
    refused(client, "classify", model="encoder", text="a", labels=["x"])
    body = '{"model": "encoder", "text": "\\ud800"}'
    answer = client.post("/api/classify", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
