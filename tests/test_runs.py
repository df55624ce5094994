"""Runs from Python: what is held out, how a run is resumed, stopped, measured and described, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.tiny_data import DATA, TINY, measured, write_all

from regard import runs
from regard.checkpoints.files import load_tensors
from regard.cli import main
from regard.errors import CheckpointError, ConfigError, DataError, TrainingError
from regard.models.families import preset
from regard.tasks.base import Evaluation
from regard.tasks.generate import GenerateTask
from regard.tasks.preparation import Reading
from regard.training.events import Evaluated, Started, Stepped, Warned

SETTINGS = {
    "width": 16, "num_heads": 2, "num_layers": 1, "precision": "fp32", "steps": 4, "evaluate_every": 2,
    "save_every": 2, "log_every": 1, "warmup": 2,
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_all(tmp_path))
    return tmp_path


def train(task="classify", **changes):
    return runs.train(task, DATA[task], **{"out": "run", **SETTINGS, **changes})


def resume(task="classify", **changes):
    return runs.train(task, out="run", resume=True, **changes)


def weights(run):
    return load_tensors(run / "model.safetensors")


def contents(run):
    return {p.relative_to(run): p.read_bytes() for p in run.rglob("*") if p.is_file()}


class Events(list):
    """Remember events, and do something at one of them."""

    def __init__(self, kind=None, at=None, then=lambda: None):
        self.kind, self.at, self.then = kind, at, then

    def __call__(self, event):
        self.append(event)
        if self.kind is not None and isinstance(event, self.kind) and getattr(event, "step", None) == self.at:
            self.then()

    def warnings(self):
        return [event.text for event in self if isinstance(event, Warned)]


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


# Held-out data


def test_the_last_tenth_is_held_out_and_never_trained_on(here, monkeypatch):
    seen = []
    original = runs.make_tokenizer
    monkeypatch.setattr(
        runs, "make_tokenizer", lambda texts, *rest: (seen.extend(texts), original(texts, *rest))[1]
    )
    lines = [f"the dog sees number {i}\tlabel{i % 2}" for i in range(30)]
    (here / "numbered.tsv").write_text("\n".join(lines) + "\n")
    runs.train("classify", "numbered.tsv", out="run", **SETTINGS)
    assert seen == [line.split("\t")[0] for line in lines[:27]]
    kept = [json.loads(line)["text"] for line in (here / "run/data/valid.jsonl").read_text().splitlines()]
    assert kept == [line.split("\t")[0] for line in lines[27:]]
    from regard.data.store import TokenStore

    tokenizer = runs.load_parts("run").tokenizer
    trained = [tokenizer.decode(ids) for ids in TokenStore.open(here / "run/data/train/text.tokens")]
    assert trained == seen


def test_of_running_text_the_last_tenth_of_its_characters(here):
    text = (here / "text.txt").read_text()
    runs.train("generate", "text.txt", out="run", tokenizer="char", **SETTINGS)
    from regard.data.store import TokenStore

    tokenizer = runs.load_parts("run").tokenizer
    stored = {p: TokenStore.open(here / f"run/data/{p}/stream.tokens") for p in ("train", "valid")}
    cut = len(text) - len(text) // 10
    assert tokenizer.decode(stored["train"].flat) == text[:cut]
    assert tokenizer.decode(stored["valid"].flat) == text[cut:]


# Going on


def test_a_larger_number_of_steps_goes_on(here):
    train(schedule="constant", steps=8)
    (here / "run").rename(here / "calm")
    train(schedule="constant")
    events = Events()
    found = resume(steps=8, report=events)
    assert found.training.steps == 8
    assert not events.warnings()
    assert measured(here / "run") == measured(here / "calm")
    assert all(torch.equal(t, weights(here / "calm")[n]) for n, t in weights(here / "run").items())
    assert json.loads((here / "run/regard.json").read_text())["training"]["steps"] == 8
    resume()  # what was given anew stays


def test_steps_changed_under_a_falling_schedule_are_said(here):
    train(schedule="linear")
    events = Events()
    resume(steps=6, report=events)
    assert "the learning rate now falls to the new end" in events.warnings()[0]


def test_resuming_what_has_ended_says_so_and_changes_nothing(here):
    first = train()
    before = contents(here / "run")
    for again in ({}, {"steps": 4}):
        events = Events()
        found = resume(report=events, **again)
        assert "already ended (steps=" in events.warnings()[-1]
        assert "give a larger --steps" in events.warnings()[-1]
        assert found.evaluation.metrics == first.evaluation.metrics
        now = contents(here / "run")
        same = [p for p in before if p not in (Path("regard.json"), Path("metrics.jsonl"))]
        assert all(now[p] == before[p] for p in same)
        assert now.keys() == before.keys()
    assert measured(here / "run")[-1]["step"] == 4


def test_the_same_words_with_resume_are_understood(here, capsys):
    words = ["train", "classify", *DATA["classify"], "--out", "run", *TINY]
    assert main(words) == 0
    assert main([*words, "--resume"]) == 0
    assert main([*words, "--resume", "--lr", "0.5"]) == 2
    assert "leave out lr: only steps, epochs, minutes, patience may change" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"data": "text.txt"}, "data"), ({"valid": "text.txt"}, "valid"), ({"model": "nano"}, "model"),
        ({"lowercase": True}, "lowercase"), ({"vocab_size": 400}, "vocab_size"), ({"width": 32}, "width"),
        ({"reading": Reading(encoding="latin-1")}, "encoding"), ({"batch_tokens": 99}, "batch_tokens"),
    ],
)  # fmt: skip
def test_a_resumed_run_keeps_its_settings(here, changes, named):
    train()
    before = contents(here / "run")
    with pytest.raises(ConfigError, match=f"leave out {named}:"):
        resume(**changes)
    with pytest.raises(ConfigError, match="is a run of classify, not of tag"):
        resume("tag")
    assert contents(here / "run") == before


def test_a_setting_that_can_not_be_leaves_the_run_as_it_was(here):
    train()
    before = contents(here / "run")
    with pytest.raises(ConfigError, match="steps=-1 is out of range"):
        resume(steps=-1)
    assert contents(here / "run") == before


def test_the_precision_that_was_found_is_kept_before_the_first_save(here, monkeypatch):
    from regard.training import loop

    monkeypatch.setattr(loop, "choose_precision", lambda asked, *rest: "bf16" if asked == "auto" else asked)
    events = Events(Started, 0, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(precision="auto", report=events)
    assert json.loads((here / "run/regard.json").read_text())["precision"] == "bf16"
    monkeypatch.setattr(loop, "choose_precision", lambda asked, *rest: "fp32" if asked == "auto" else asked)
    events = Events()
    resume(report=events)
    assert next(e for e in events if isinstance(e, Started)).precision == "bf16"


# Stopping


def test_ctrl_c_saves_and_the_resumed_run_is_the_same(here, capsys):
    train(steps=8)
    (here / "run").rename(here / "calm")
    found = train(steps=8, report=Events(Stepped, 5, interrupt))
    assert found.training.reason == "interrupted"
    assert found.training.steps == 5
    assert (here / "run/checkpoints/step-5/manifest.json").exists()
    assert "interrupted" in (here / "run/README.md").read_text()
    assert (here / "run/curves.png").exists()
    assert resume().training.reason == "steps"
    assert measured(here / "run") == measured(here / "calm")
    assert all(torch.equal(t, weights(here / "calm")[n]) for n, t in weights(here / "run").items())


def test_ctrl_c_before_the_first_evaluation(here):
    found = train(report=Events(Stepped, 1, interrupt))
    assert found.training.reason == "interrupted"
    assert found.evaluation == Evaluation({})
    assert not (here / "run/README.md").exists()
    with pytest.raises(CheckpointError, match="stopped before its first evaluation; go on with --resume"):
        runs.load_parts("run")
    runs.describe("run")
    assert resume().training.steps == 4


def test_ctrl_c_in_the_last_evaluation_loses_nothing(here, monkeypatch):
    from regard.tasks.classify import ClassifyTask

    original = ClassifyTask.evaluate

    def evaluate(self, *arguments, quick, should_stop=lambda: False, **keywords):
        if not quick:
            interrupt()
        return original(self, *arguments, quick=quick, should_stop=should_stop, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(ClassifyTask, "evaluate", evaluate)
        assert train().training.reason == "interrupted"
    events = Events()
    found = resume(report=events)
    assert not events.warnings()
    assert found.training.reason == "steps"
    assert json.loads((here / "run/regard.json").read_text())["result"]["metrics"] == found.evaluation.metrics


def test_ctrl_c_during_the_preparation_leaves_nothing(here):
    def stop(event):
        if getattr(event, "what", "") == "tokenising":
            raise KeyboardInterrupt

    before = sorted(here.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        train(report=stop)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_130_and_the_words_to_go_on(here, number):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = ["train", "classify", *DATA["classify"], "--out", "my run", *TINY]
    words[words.index("--steps") + 1] = "1000000"
    with subprocess.Popen(
        [sys.executable, "-m", "regard", *words], cwd=here, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 2:"):
                process.send_signal(number)
                break
        out, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "interrupted" in out.splitlines()[-1]
    assert err.splitlines() == ["to go on: regard train classify --resume --out 'my run'"]
    assert len(list((here / "my run/checkpoints").iterdir())) == 1


# What is damaged, missing or too small


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("regard.json", None, "run is not a run: it has no regard.json"),
        ("regard.json", "{", r"regard.json:1: not valid JSON"),
        ("regard.json", "[1]", "regard.json is damaged"),
        ("config.json", None, "has no config.json"),
        ("config.json", "[1]", "must hold an object"),
        ("config.json", '{"model_type": "regard", "kind": "x", "vocab_size": 9}', "config.json: kind='x' is not one"),
        ("tokenizer.json", None, "there is no tokenizer here"),
        ("data/train/text.tokens", None, r"text.tokens is missing; .* begin the run again"),
        ("data/train/text.tokens", "x", r"not a file of token ids; .* begin the run again"),
        ("data/valid.jsonl", None, r"valid.jsonl can't be read .* begin the run again"),
        ("data/valid.jsonl", "{", r"valid.jsonl can't be read"),
    ],
)  # fmt: skip
def test_a_damaged_run_is_not_resumed(here, file, content, told):
    train()
    path = here / "run" / file
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    before = contents(here / "run")
    with pytest.raises(CheckpointError, match=told):
        resume(steps=6)
    assert contents(here / "run") == before


def test_damaged_checkpoints(here):
    train()
    newest = here / "run/checkpoints/step-4/model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-5])
    events = Events()
    resume(steps=6, report=events)
    assert any("step-4 is not whole" in text for text in events.warnings())
    for file in (here / "run/checkpoints").glob("step-*/optimizer.safetensors"):
        file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of the 2 saved states"):
        resume(steps=8)


@pytest.mark.parametrize("near", [True, False])
def test_a_run_that_is_not_there(here, near):
    if near:
        train()
    with pytest.raises(CheckpointError, match="did you mean 'run'" if near else r"no regard.json\.$"):
        runs.train("classify", out="runn", resume=True)
    with pytest.raises(CheckpointError, match="did you mean 'run'" if near else r"is not there\.$"):
        runs.load_parts("runn")


def test_weights_that_no_evaluation_could_measure(here, monkeypatch):
    from regard.tasks.classify import ClassifyTask

    monkeypatch.setattr(ClassifyTask, "evaluate", lambda *a, **k: Evaluation({"accuracy": float("nan")}))
    with pytest.raises(TrainingError, match="no evaluation gave a number for accuracy"):
        train()


def test_a_full_disk_during_the_preparation(here, monkeypatch):
    from regard.data import store

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write", full)
    before = sorted(here.rglob("*"))
    with pytest.raises(DataError, match="can't be written: No space left on device"):
        train()
    assert sorted(here.rglob("*")) == before


def test_a_full_disk_for_the_picture_costs_no_run(here, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("regard.tasks.ending.draw_curves", full)
    events = Events()
    assert train(report=events).training.reason == "steps"
    assert "could not be written: No space left on device" in events.warnings()[-1]
    assert runs.describe("run")["result"]["steps"] == 4


def test_a_whole_configuration_as_the_model(here):
    config = preset("encoder-tiny", width=16, num_heads=2, num_layers=1, position="alibi")
    train(model=config)
    assert runs.load_parts("run").config.position == "alibi"
    assert "regard train" not in (here / "run/README.md").read_text()
    with pytest.raises(ConfigError, match="needs a model of kind encoder-decoder, not encoder"):
        train("translate", model=config, out="other")


def test_evaluations_are_reported(here):
    events = Events()
    train(report=events)
    assert [e.step for e in events if isinstance(e, Evaluated)] == [2, 4]


def test_a_run_remembers_how_long_its_targets_are(here):
    (here / "long.jsonl").write_text(
        "".join(
            json.dumps({"source": "a dog", "target": "le chien " * (2 + i % 9)}) + "\n" for i in range(40)
        )
    )
    runs.train("translate", "long.jsonl", out="run", tokenizer="char", **SETTINGS)
    assert (
        runs.load_parts(here / "run").stretch == 5
    )  # 90 characters and an end, less 20, for 16 of the source
    runs.train("translate", DATA["translate"], out="usual", **SETTINGS)
    assert runs.load_parts(here / "usual").stretch == 2


@pytest.mark.parametrize("steps", [4, 5])
def test_weights_that_were_measured_whole_are_not_measured_again(here, monkeypatch, steps):
    seen, evaluate = [], GenerateTask.evaluate
    monkeypatch.setattr(
        GenerateTask, "evaluate", lambda *a, quick, **k: seen.append(quick) or evaluate(*a, quick=quick, **k)
    )
    run = train("generate", steps=steps, lr=1e-3, schedule="constant")
    assert run.training.best_step == steps
    assert seen == [True] * (3 if steps == 5 else 2)
    assert run.evaluation.metrics == run.training.best
