"""Recipes: what they read, and one of each kind from files to a figure, very small."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import regard.recipes
import regard.reproduce
from regard.cli import main
from regard.errors import ConfigError, DataError
from regard.recipes import RECIPES
from regard.reproduce import reproduce

TINY: dict[str, Any] = {
    "width": 16, "num_heads": 2, "num_layers": 1, "precision": "fp32", "steps": 3, "evaluate_every": 3,
    "save_every": 3, "warmup": 1, "batch_tokens": 256, "vocab_size": 300,
}  # fmt: skip
QUESTIONS = "".join(
    f"{i % 6} what is the {word} of number {i} ?\n" for i, word in enumerate(["name", "place"] * 30)
)


TRAINED = ("trec", "sst2", "scan-simple", "snips-slots", "tiny-shakespeare")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make the recipes tiny, and give a folder with files as their publishers write them."""
    for name in TRAINED:
        recipe = RECIPES[name]
        keep = {key: value for key, value in recipe.laptop.items() if key in ("tokenizer", "model")}
        tiny = {**keep, **TINY}
        if keep.get("tokenizer") == "char":
            del tiny["vocab_size"]
        before = None if recipe.pretrain is None else {"model": "encoder-tiny", "tokenizer": "bpe", **TINY}
        if before is not None:  # its sizes are those of what was pre-trained
            tiny = {
                key: value for key, value in tiny.items() if key not in ("width", "num_heads", "num_layers")
            }
        first = None if recipe.first is None else tiny
        changed = dataclasses.replace(recipe, laptop=tiny, pretrain=before, first=first)
        monkeypatch.setitem(regard.recipes.RECIPES, name, changed)
    folder = tmp_path / "published"
    (folder / "simple_split").mkdir(parents=True)
    (folder / "TREC.train.all").write_text(QUESTIONS)
    (folder / "simple_split" / "tasks_train_simple.txt").write_text(
        "".join(
            f"IN: {verb} {times} OUT: {'I_' + verb.upper()}\n"
            for verb in ("run", "look")
            for times in range(30)
        )
    )
    for name, count in (("train", 40), ("dev", 4)):
        (folder / "sst2").mkdir(exist_ok=True)
        phrases = (
            f"a {word} film {i}\t{i % 2}\n{word}\t1\n" for i, word in enumerate(["warm", "dull"] * count)
        )
        (folder / "sst2" / f"{name}.tsv").write_text("sentence\tlabel\n" + "".join(phrases))
    (folder / "input.txt").write_text("First Citizen:\nBefore we proceed any further, hear me speak.\n" * 40)
    for part, count in (("train", 30), ("dev", 6)):
        (folder / part).mkdir()
        (folder / part / "seq.in").write_text("play a song by someone\n" * count)
        (folder / part / "seq.out").write_text("O O B-item O B-artist\n" * count)
        (folder / part / "label").write_text("PlayMusic\n" * count)
    return folder


@pytest.mark.parametrize("name", TRAINED)
def test_a_recipe_trains_and_stands_beside_the_published(
    small: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = RECIPES[name]
    data = small / "sst2" if name == "sst2" else small
    words = ["reproduce", name, "--data", str(data), "--out", str(tmp_path / "run")]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["metric"] == recipe.metric and said["name"] == name
    assert said["figures"] == [dataclasses.asdict(figure) for figure in recipe.figures]
    assert said["seconds"] >= said["pretraining"] and (said["pretraining"] > 0) == (
        recipe.pretrain is not None
    )
    record = json.loads((tmp_path / "run" / "regard.json").read_text())
    assert (tmp_path / "run-first" / "model.safetensors").is_file() == (recipe.first is not None)
    assert said["value"] == record["result"]["metrics"][recipe.metric]
    assert main(words) == 0  # scored already: the same figure, no training
    shown = capsys.readouterr().out
    assert "ours" in shown and "published" in shown and recipe.figures[0].source.split(",")[0] in shown


def test_held_out_rows_are_no_training_rows(small: Path) -> None:
    found = RECIPES["trec"].read(small)
    texts = {part: [row["text"] for row in rows] for part, rows in found.items()}
    assert len(texts["valid"]) == 6 and len(texts["train"]) == 54
    assert not set(texts["train"]) & set(texts["valid"])
    assert found == RECIPES["trec"].read(small)


def test_sentences_are_trained_on_after_all_phrases(tmp_path: Path) -> None:
    lines = [
        "a warm , funny film\t1",
        "warm\t1",
        "funny film\t0",
        "a film , warm\t0",
        "a warm , funny film\t1",
    ]
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    found = RECIPES["sst2"].read(tmp_path)
    assert len(found["first"]) == len(found["valid"]) == 5
    assert [(row["text"], row["label"]) for row in found["train"]] == [
        ("a warm , funny film", "positive"), ("a film , warm", "negative"),
    ]  # fmt: skip


def test_every_recipe_is_whole() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name and recipe.files and recipe.about and "minutes" in recipe.laptop
        for figure in recipe.figures:
            assert figure.source and 0 < figure.value < (1 if recipe.percent else 100)


def test_bad_asking_is_one_clear_sentence(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="did you mean 'trec'"):
        reproduce("treck", small)
    with pytest.raises(DataError, match=r"lacks train\.tsv, dev\.tsv; name the folder"):
        reproduce("sst2", small, out=tmp_path / "run")
    assert main(["reproduce", "trec"]) == 2
    assert "--data is the folder with TREC.train.all" in capsys.readouterr().err
    assert main(["reproduce"]) == 0
    assert "scan-simple" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["trec", "subj", "mr", "sst2", "snips-slots", "snips-intents", "wnut17", "wikiann",
                                  "scan-simple", "scan-length", "scan-jump", "cogs", "multi30k-en-de"])  # fmt: skip
def test_the_publishers_files_are_read(shared: Path, name: str) -> None:
    folders = {
        "sst2": "sst2-glue", "subj": "sentence-classification-cv", "mr": "sentence-classification-cv",
    }  # fmt: skip
    folder = shared / "data" / folders.get(name, name.partition("-")[0])
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is not among the shared data")
    found = RECIPES[name].read(folder)
    assert len(found["train"]) > 3 * len(found["valid"]) > 300 or name in (
        "wnut17",
        "wikiann",
        "multi30k-en-de",
    )
    keys = {"classify": {"text", "label"}, "tag": {"words", "tags"}, "translate": {"source", "target"}}
    for rows in found.values():
        assert all(row.keys() == keys[RECIPES[name].task] for row in rows)
        assert all(all(row.values()) for row in rows)
        if RECIPES[name].task == "tag":
            assert all(len(row["words"]) == len(row["tags"]) for row in rows)


def test_nothing_is_trained_from_what_is_half_trained(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def stopped(task: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(task)
        return SimpleNamespace(training=SimpleNamespace(reason="interrupted"))

    monkeypatch.setattr(regard.reproduce, "train", stopped)
    assert main(["reproduce", "trec", "--data", str(small), "--out", str(tmp_path / "run")]) == 130
    assert asked == ["fill"]
    assert "the same command goes on from here" in capsys.readouterr().err


def test_a_run_is_not_taken_for_another_one(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reproduce", "scan-simple", "--data", str(small), "--out", str(tmp_path / "run")]
    assert main(words) == 0
    before = (tmp_path / "run-data" / "train.jsonl").read_bytes()
    for more, said in (
        (["--seed", "7"], "trained with seed 1, not 7"),
        (["--epochs", "9"], "trained with epochs"),
    ):
        assert main([*words, *more]) == 2
        assert said in capsys.readouterr().err
    path = small / "simple_split" / "tasks_train_simple.txt"
    path.write_text(path.read_text().replace("look", "walk"))
    assert main(words) == 2
    assert "was trained on other rows" in capsys.readouterr().err
    assert (tmp_path / "run-data" / "train.jsonl").read_bytes() == before


@pytest.mark.parametrize("line", ["no label", "7 of another kind", "\x00\x01", "-1 a label from the end"])
def test_a_broken_line_is_named(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    path = small / "TREC.train.all"
    path.write_text(f"{QUESTIONS}{line}\n")
    assert main(["reproduce", "trec", "--data", str(small), "--out", str(tmp_path / "run")]) == 2
    assert f"{path}:61: " in capsys.readouterr().err
    path.write_text("")
    assert main(["reproduce", "trec", "--data", str(small), "--out", str(tmp_path / "run")]) == 2
    assert "is empty" in capsys.readouterr().err


def test_an_output_that_cannot_be_is_refused(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run-data").write_text("a file")
    for out in (tmp_path / "run", Path("/")):
        assert main(["reproduce", "trec", "--data", str(small), "--out", str(out)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
