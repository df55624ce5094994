"""`regard classify` and `regard tag` on the command line: on runs that the tests train, and on what they refuse."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.small import make_parts, save
from tests.tiny_data import DATA, sentences, write_all

import regard
from regard.cli import main

LEARN = [
    "--width", "32", "--num-heads", "2", "--num-layers", "1", "--precision", "fp32", "--steps", "40",
    "--evaluate-every", "40", "--warmup", "5", "--lr", "0.01", "--dropout", "0",
]  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a classifier, one of several labels and a tagger."""
    folder = write_all(tmp_path_factory.mktemp("labels"))
    rows = []
    for text in sentences():
        kinds = [word for word in ("dog", "cat", "man") if word in text]
        rows.append(f"{text}\t{'|'.join(kinds)}")
    rows += ["a likes the\t|"] * 3
    (folder / "several.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for task in ("classify", "tag"):
            assert main(["train", task, *DATA[task], "--valid", *DATA[task], "--out", task, *LEARN]) == 0
        words = ["train", "classify", "several.tsv", "--valid", "several.tsv", "--label-separator", "|"]
        assert main([*words, "--out", "several", *LEARN]) == 0
    save(make_parts("encoder", head="classify", labels=("entail", "contra"), context=32), folder / "nli")
    return folder


@pytest.fixture(autouse=True)
def _there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_a_text_gives_a_table_and_texts_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "classify", "classify", "the dog likes a cat").splitlines()
    assert lines[0].split() == ["label", "score"]
    assert [line.split()[0] for line in lines[1:]] == ["animal", "other"]
    lines = said(capsys, "classify", "classify", "the dog likes a cat", "the man sees the man").splitlines()
    assert [line.split("\t")[0] for line in lines] == ["animal", "other"]
    assert lines[0].endswith("\tthe dog likes a cat")
    lines = said(capsys, "classify", "classify", "a dog", "a cat", "--top", "1").splitlines()
    assert len(lines) == 6


def test_several_labels_are_learned_and_shown(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    config = json.loads((here / "several" / "config.json").read_text())
    assert config["multi_label"] is True
    model = regard.load("several")
    assert model.config.labels == ("cat", "dog", "man")
    assert set(model.classify("the dog likes a cat").chosen) == {"dog", "cat"}
    lines = said(capsys, "classify", "several", "the dog likes a cat").splitlines()
    assert lines[0].split() == ["label", "score", "chosen"]
    assert [line.split()[-1] for line in lines[1:3]] == ["yes", "yes"]
    assert "micro_f1" in said(capsys, "evaluate", "several", "several.tsv")
    card = (here / "several" / "README.md").read_text()
    assert "the best by micro_f1" in card
    assert "regard classify several" in card
    found = json.loads(said(capsys, "classify", "several", "a dog", "--threshold", "1", "--json"))
    assert found["classifications"][0]["chosen"] == []


def test_json_and_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the dog\nthe man\n")))
    found = json.loads(said(capsys, "classify", "classify", "--json"))["classifications"]
    assert [one["source"] for one in found] == ["the dog", "the man"]
    assert {"label", "score", "scores", "chosen", "tokens", "windows"} <= set(found[0])


def test_labels_of_ones_own_and_pairs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = regard.load("nli")
    found = json.loads(
        said(capsys, "classify", "nli", "a", "--labels", "dog, cat", "--template", "a {}", "--json")
    )
    expected = model.classify("a", labels=["dog", "cat"], template="a {}")
    assert found["classifications"][0]["scores"][0]["label"] == expected.label
    paired = model.classify("a", pair="dog").score
    one = json.loads(said(capsys, "classify", "nli", "a", "--pair", "dog", "--json"))["classifications"][0]
    two = json.loads(said(capsys, "classify", "nli", "a\tdog", "--pairs", "--json"))["classifications"][0]
    assert one["score"] == two["score"] == pytest.approx(paired)
    assert one["tokens"] == len("a") + len("dog") + 3
    source, target = tmp_path / "in.tsv", tmp_path / "out.jsonl"
    source.write_text("a\tdog\nlonely\na\tcat\n")
    words = ["classify", "nli", "--pairs", "--input", str(source), "--output", str(target)]
    assert main(words) == 2
    assert ":2: must hold two texts with one tab" in capsys.readouterr().err
    assert main([*words, "--skip-bad-rows"]) == 0
    first, bad, _ = target.read_text().split("\n")[:-1]
    assert json.loads(first)["score"] == pytest.approx(paired)
    assert bad == ""


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["classify", "tag", "a"], "can't classify"),
        (["tag", "classify", "a"], "can't tag"),
        (["classify", "classify", "a", "--labels", "x"], "knows entailment"),
        (["classify", "classify", "a", "--threshold", "0.5"], "threshold=0.5 is for texts"),
        (["classify", "classify", "a", "--top", "0"], "top=0"),
        (["classify", "nli", "a", "--pair", "b", "--pairs"], "--pair or --pairs, not both"),
        (["classify", "nli", "a", "--labels", "x,,y"], "none of them empty"),
        (["classify", "nli", "a" * 40], "has 42 tokens; this model's context is 32"),
        (["tag", "tag", "the dog " * 300], "--windows"),
        (["tag", "tag", "a", "--strategy", "max"], "choose none or first"),
        (["tag", "tag", "a", "--strategy", "maximum"], "maximum"),
        (["tag", "tag", "--input", "x"], "--input and --output go together"),
        (["train", "tag", *DATA["tag"], "--label-separator", ";"], "is for classify, not for tag"),
    ],
)
def test_what_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], part: str, here: Path
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert part in line
    assert not (here / "x").exists()


def test_a_separator_that_no_label_has_is_refused(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    words = ["train", "classify", *DATA["classify"], "--label-separator", ";", "--out", "x"]
    assert main(words) == 2
    assert "';' stands in no label of the data" in capsys.readouterr().err
    assert not (here / "x").exists()


def entities(result: dict[str, Any]) -> list[tuple[str, int]]:
    return [(one["text"], one["start"]) for one in result["entities"]]


def test_tag_gives_places_in_the_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = said(capsys, "tag", "tag", "the dog sees  a  cat").splitlines()
    assert lines[0].split() == ["text", "label", "start", "end", "score"]
    assert [line.split()[:4] for line in lines[1:]] == [["dog", "N", "4", "7"], ["cat", "N", "17", "20"]]
    found = json.loads(said(capsys, "tag", "tag", "the dog", "sees", "--json"))["taggings"]
    assert [entities(one) for one in found] == [[("dog", 4)], []]
    lines = said(capsys, "tag", "tag", "the man", "a").splitlines()
    assert [lines[0], lines[-1], len(lines)] == ["the man", "a", 4]
    assert main(["tag", "tag", "a"]) == 0
    assert "nothing found" in capsys.readouterr().err
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("the dog\n\n" + "the cat sees a man " * 200 + "\n")
    words = ["tag", "tag", "--input", str(source), "--output", str(target), "--windows"]
    assert main(words) == 0
    first, second, third = (json.loads(line) for line in target.read_text().splitlines())
    assert [entities(first), entities(second)] == [[("dog", 4)], []]
    assert entities(third)[-1] == ("man", 19 * 199 + 15)
    assert third["windows"] > 1
