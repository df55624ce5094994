"""Verbs without a model: the newest run that was trained for it, else a published one, else how to come by one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.small import make_parts, save, tokenizer, translator, writer
from tests.tasks.talker import talker

from regard.checkpoints.load import save_model
from regard.cli import VERBS, main
from regard.cli.defaults import _DEFAULTS, is_name
from regard.models.families import preset
from regard.models.transformer import build
from regard.tasks.base import Parts

SHORT = ["--max-tokens", "4"]
ENTAILS = make_parts("encoder", head="classify", labels=("entailment", "contradiction"))
SUMMARY = {"columns": ["article", "summary"]}


def run(parts: Parts, name: str, task: str | None, *, age: int = 0, **given: Any) -> Path:
    """Write a model below runs/, with the record of a run if it has a task, so many seconds old."""
    folder = save(parts, Path("runs") / name)
    if task is not None:
        record = {"task": task, "model": parts.config.to_dict(), "given": given}
        (folder / "regard.json").write_text(json.dumps(record))
    os.utime(folder / "model.safetensors", (10**9 - age, 10**9 - age))
    return folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a run for every verb, an older one of each, and a newer one that suits none of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    labels = make_parts("encoder", head="classify", labels=("good", "bad"))
    for name, parts, task in (
        ("translate", translator(), "translate"),
        ("summarize", translator(), "translate"),
        ("generate", writer(), "generate"),
        ("chat", talker(), "chat"),
        ("classify", labels, "classify"),
        ("entailment", ENTAILS, "classify"),
        ("tag", make_parts("encoder", head="tag", labels=("O", "B-N")), "tag"),
        ("fill", make_parts("encoder"), "fill"),
        ("answer", make_parts("encoder", head="span"), None),
    ):
        given = SUMMARY if name == "summarize" else {}
        age = 200 if name == "entailment" else 10  # it classifies too
        run(parts, name, task, age=age, **given)
        run(parts, f"{name}-old", task, age=age + 90, **given)
    run(translator(), "denoise", "denoise")
    return tmp_path


def done(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], str]:
    assert main([words[0], "--json", *words[1:]]) == 0, capsys.readouterr().err
    shown = capsys.readouterr()
    return json.loads(shown.out), shown.err


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    return shown.err


ASKED = [
    ("translate", ["translate", "a dog", *SHORT]),
    ("summarize", ["summarize", "a dog", *SHORT]),
    ("generate", ["generate", "a dog", *SHORT]),
    ("chat", ["chat", "--message", "a dog", *SHORT]),
    ("chat", ["chat", "a dog", "a cat", *SHORT]),
    ("classify", ["classify", "a dog"]),
    ("entailment", ["classify", "a dog", "--labels", "x, y"]),
    ("entailment", ["classify", "a dog", "--pair", "an animal"]),
    ("tag", ["tag", "a dog"]),
    ("fill", ["fill", "a [MASK]"]),
    ("answer", ["answer", "a dog", "--question", "who?"]),
    ("generate", ["score", "a dog"]),
    ("translate", ["score", "un chien", "--source", "a dog"]),
    ("fill", ["embed", "a dog"]),
    ("fill", ["embed", "a dog", "--search", "lines.txt"]),
]


@pytest.mark.parametrize(("name", "words"), ASKED)
def test_the_newest_run_that_was_trained_for_it_is_taken(
    runs: Path, capsys: pytest.CaptureFixture[str], name: str, words: list[str]
) -> None:
    (runs / "lines.txt").write_text("a dog\na cat\n")
    if words[0] == "score":
        for other in ("fill", "fill-old"):
            os.utime(f"runs/{other}/model.safetensors", (0, 0))  # either may score
    found, said = done(capsys, *words)
    assert found["model"] == f"runs/{name}"
    assert said.startswith(f"model: runs/{name}, the newest in runs/ that ")
    named, said = done(capsys, words[0], "--model", f"runs/{name}-old", *words[1:])
    assert named["model"] == f"runs/{name}-old"
    assert "model:" not in said


@pytest.mark.parametrize("words", [words for _, words in ASKED if "--search" not in words])
def test_without_any_it_is_said_how_to_come_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    run(translator(), "denoise", "denoise")
    said = refused(capsys, *words)
    assert said.startswith("regard: no model is named, and none in runs/ ")
    assert said.endswith(", or name a folder or an id of the hub.\n")
    assert "is not in the hub's cache, and this is offline. " in said or "`regard demo`" in said


def test_every_verb_of_a_model_has_a_default() -> None:
    asked = {words[0] for _, words in ASKED}
    assert asked <= set(_DEFAULTS)
    assert {name for name, verb in VERBS.items() if verb.group == "Run"} - asked == {
        "evaluate",
        "info",
        "convert",
    }
    for default in _DEFAULTS.values():
        assert default.hub is None or default.hub.count("/") == 1


def test_it_is_said_before_anything_heavy_is_loaded(
    tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(writer(), "book", "generate")
    program = (
        "import sys; from regard.cli import main; code = main(['classify', 'I loved it.']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(repo / "src"),
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
    }
    child = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    assert (child.returncode, child.stderr.count(b"\n")) == (2, 1), child.stderr
    assert b"classifies" in child.stderr


def test_a_hub_that_cannot_be_reached_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **settings: Any) -> None:
        assert settings["timeout"] <= 10
        raise ConnectionError("a wall of text")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    assert "dslim/distilbert-NER can't be fetched (ConnectionError). Train one" in refused(
        capsys, "tag", "a dog"
    )


def test_a_published_model_in_the_cache_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "models--dslim--distilbert-NER"
    (folder / "refs").mkdir(parents=True)
    commit = hashlib.sha1(b"any").hexdigest()
    (folder / "refs" / "main").write_text(commit)
    save(make_parts("encoder", head="tag", labels=("O", "B-N")), folder / "snapshots" / commit)
    run(writer(), "book", "generate")
    found, said = done(capsys, "tag", "a dog")
    assert found["model"] == "dslim/distilbert-NER"
    assert said.startswith("model: dslim/distilbert-NER of the hub, as none in runs/ tags\n")


def test_a_published_model_below_runs_is_one_too(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = tokenizer()
    config = preset("gpt2", width=16, num_heads=2, num_layers=1, context=64, vocab_size=tokens.vocab_size,
                    bos_id=1, eos_id=2)  # fmt: skip
    folder = Path("runs/mine/gpt2")
    folder.mkdir(parents=True)
    assert save_model(folder, build(config).state_dict(), config, family="gpt2") == "gpt2"
    tokens.save(folder)
    assert done(capsys, "generate", "a dog", *SHORT)[0]["model"] == "runs/mine/gpt2"
    assert done(capsys, "chat", "--message", "a", *SHORT)[0]["model"] == "runs/chat"  # it has no template
    assert done(capsys, "embed", "a dog")[0]["model"] == "runs/fill"
    assert "t5-small is not in" in refused(
        capsys, "translate", "a dog", "--source-language", "en", "--target-language", "de"
    )  # ours know no languages


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"), ("config.json", b"[]"), ("config.json", None), ("config.json", b'{"model_type": "x"}'),
        ("regard.json", b"{}{"), ("regard.json", b'{"task": 3}'), ("model.safetensors", b"junk"),
        ("model.safetensors", None),
    ],
)  # fmt: skip
def test_a_broken_folder_is_none(
    runs: Path, capsys: pytest.CaptureFixture[str], file: str, content: bytes | None
) -> None:
    path = Path("runs/classify") / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
        os.utime(path)
    assert done(capsys, "classify", "a dog")[0]["model"] == "runs/classify-old"


def test_standard_input_and_files_need_no_model(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a dog\na cat\n")))
    found, _ = done(capsys, "classify")
    assert [one["source"] for one in found["classifications"]] == ["a dog", "a cat"]
    (runs / "in.txt").write_text("a dog\na cat\n")
    found, said = done(capsys, "translate", "--input", "in.txt", "--output", "out.txt", *SHORT)
    assert (found["model"], found["lines"]) == ("runs/translate", 2)
    assert said.startswith("model: runs/translate, ")
    assert (runs / "out.txt").read_text().count("\n") == 2


def test_a_word_that_is_no_model_has_two_readings(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hint = "If 'Hello' is a text, name a model before it, or with --model."
    assert hint in refused(capsys, "classify", "Hello")
    assert hint in refused(capsys, "classify", "Hello", "world")
    assert "If 'no/model' is a text" in refused(capsys, "classify", "no/model")
    assert "is a text" not in refused(capsys, "classify", "runs/classfy", "a dog")
    assert "did you mean the folder 'runs/classify'?" in refused(capsys, "classify", "runs/classfy", "a dog")
    assert "is a text" not in refused(capsys, "classify", "--model", "Hello", "a dog")
    found, _ = done(capsys, "classify", "--model", "runs/classify", "Hello", "runs/classify")
    assert [one["source"] for one in found["classifications"]] == ["Hello", "runs/classify"]
    (runs / "Hello").mkdir()
    assert "Hello is not a model directory" in refused(capsys, "classify", "Hello")


@pytest.mark.parametrize(
    ("word", "is_one"),
    [
        ("gpt2", True), ("openai-community/gpt2", True), ("./runs/x", True), ("~/x", True), ("runs/a_b.c-2", True),
        ("Hello", True), ("a dog", False), ("", False), ("-", False), ("Hello, world", False), ("Really?", False),
        ("I'm", False), ("a\tb", False), ("été", False), ("狗", False), ("a b/c", False), ("x " * 3000, False),
    ],
)  # fmt: skip
def test_what_can_be_a_name(word: str, is_one: bool) -> None:
    assert is_name(word) == is_one


def test_a_folder_that_is_there_is_a_name_whatever_it_is_called(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("runs/classify").rename("my été")
    assert done(capsys, "classify", "my été", "a dog")[0]["model"] == "my été"


@pytest.mark.parametrize(
    "words",
    [
        ["runs/translate", "--beams", "2", "a", "dog", *SHORT],
        ["--beams", "2", "runs/translate", "a", *SHORT, "dog"],
        ["runs/translate", "a", "--beams", "2", "dog", *SHORT],
        ["runs/translate", *SHORT, "a", "--beams", "2", "--", "dog"],
    ],
)
def test_flags_and_texts_mix(runs: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    found, _ = done(capsys, "translate", *words)
    assert [one["source"] for one in found["translations"]] == ["a", "dog"]
    assert found["model"] == "runs/translate"


def test_a_lone_hyphen_in_a_shared_flag_is_a_value(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no file -" in refused(capsys, "tag", "runs/tag", "--input", "-", "--output", "out")


@pytest.mark.parametrize("fault", ["no tokenizer", "half a tokenizer", "other weights", "another vocabulary"])
def test_a_broken_newest_run_is_passed_over(
    runs: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    parts = make_parts("encoder", head="classify", labels=("good", "bad"))
    folder = run(parts, "newest", "classify")
    if fault == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif fault == "half a tokenizer":
        (folder / "tokenizer.json").write_text("{")
    else:
        settings = json.loads((folder / "config.json").read_text())
        key = "width" if fault == "other weights" else "vocab_size"
        (folder / "config.json").write_text(json.dumps({**settings, key: settings[key] * 2}))
    found, _ = done(capsys, "classify", "a dog runs")
    assert found["model"] == str(Path("runs") / "classify")
