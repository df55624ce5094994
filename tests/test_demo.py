"""The demo from end to end, very small."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from regard import demo
from regard.cli import main
from regard.config import ModelConfig
from regard.demo import DemoResult, Recipe, run_demo
from regard.errors import ConfigError, DataError
from regard.runs import RunResult
from regard.training import pace
from regard.training.config import TrainConfig
from regard.training.events import Stepped

TINY = Recipe(
    primer=60, primer_times=1, whole=200, valid=20, test=60, search=40, vocab_size=400,
    model={
        "width": 16, "num_layers": 1, "num_heads": 2, "context": 128, "position": "sinusoidal",
        "norm": "layernorm", "norm_placement": "post", "activation": "relu", "scale_embeddings": True,
    },
    training={"steps": 12, "batch_tokens": 512, "lr": 4e-3, "warmup": 2, "evaluate_every": 12, "precision": "fp32"},
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    result = run_demo(tmp_path_factory.mktemp("demo") / "run", recipe=TINY)
    assert isinstance(result, DemoResult)
    return result


def test_a_busy_moment_at_the_start_takes_no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three quarters of the steps that are timed are three times as slow, since something else is at work."""
    clock = iter(
        [0.1 * step + part * (0.03 if step % 4 else 0.01) for step in range(1000) for part in (0, 1)]
    )
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(clock))
    config = ModelConfig(kind="encoder-decoder", vocab_size=TINY.vocab_size, **TINY.model)
    training = TrainConfig(**{**TINY.training, "steps": 850})
    assert demo._time_a_step(config, training) == pace.Pace(pytest.approx(0.01), "fp32")


def test_it_reports_what_is_there(trained: DemoResult) -> None:
    assert not trained.reused and trained.steps == 12
    assert 0 <= trained.pronoun_accuracy <= 1 and trained.chance == 0.5
    assert 0 < trained.pronouns <= trained.test_sentences == 60
    head = trained.referent_head
    assert head.low <= head.accuracy <= head.high and 0 <= head.share <= 1
    assert [one.source[-6:] for one in trained.famous] == ["tired.", " wide."]
    assert not any(one.correct for one in trained.famous), "twelve steps teach nobody French"


def test_the_second_time_it_uses_what_is_there(
    trained: DemoResult, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained.run / "model.safetensors").read_bytes()
    again = run_demo(trained.run, recipe=TINY)
    assert isinstance(again, DemoResult) and again.reused
    assert again.pronoun_accuracy == trained.pronoun_accuracy and again.referent_head == trained.referent_head
    assert (trained.run / "model.safetensors").read_bytes() == before
    with pytest.raises(ConfigError, match="add --again"):
        run_demo(trained.run, recipe=TINY, minutes=1)


def test_the_command_prints_one_object(
    trained: DemoResult, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "Recipe", lambda: TINY)
    assert main(["demo", "--out", str(trained.run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"seconds", "bleu", "pronoun_accuracy", "chance", "referent_head"} <= set(found)
    assert {"where", "accuracy", "share"} <= set(found["referent_head"])
    assert main(["demo", "--out", str(trained.run)]) == 0
    shown = capsys.readouterr().out
    assert "The famous pair" in shown and "\x1b" not in shown


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    assert main(["demo", "--out", str(tmp_path / "run"), "--again"]) == 2
    assert capsys.readouterr().err.count("\n") >= 1
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"minutes": -1}, "minutes=-1 is out of range"), ({"minutes": 0}, "minutes=0 is out of range"),
        ({"minutes": float("nan")}, "minutes=nan"), ({"minutes": float("inf")}, "minutes=inf"),
        ({"seed": -5}, "seed=-5 is out of range"),
    ],
)  # fmt: skip
def test_settings_that_can_not_be_cost_nothing(
    trained: DemoResult, tmp_path: Path, settings: dict[str, float], told: str
) -> None:
    before = {p: p.read_bytes() for p in trained.run.parent.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match=told):
        run_demo(trained.run, recipe=TINY, again=True, **settings)  # type: ignore[arg-type]
    assert {p: p.read_bytes() for p in trained.run.parent.rglob("*") if p.is_file()} == before
    with pytest.raises(ConfigError, match=told):
        run_demo(tmp_path / "run", recipe=TINY, **settings)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", [".", "/", ".."])
def test_a_place_without_a_name(out: str) -> None:
    with pytest.raises(ConfigError, match="has no name of its own"):
        run_demo(out, recipe=TINY)


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="run-world can't be written: Not a directory"):
        run_demo(tmp_path / "file" / "run", recipe=TINY)


def test_again_keeps_the_old_demo_until_the_new_one_stands(tmp_path: Path) -> None:
    def interrupt(event: object) -> None:
        if isinstance(event, Stepped):
            os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "run"
    assert isinstance(run_demo(out, recipe=TINY), DemoResult)
    old = (out / "model.safetensors").read_bytes()
    stopped = run_demo(out, recipe=TINY, again=True, seed=2, report=interrupt)
    assert isinstance(stopped, RunResult) and stopped.training.reason == "interrupted"
    assert (out / "model.safetensors").read_bytes() == old
    assert 0 < stopped.training.steps < 12

    # The same command goes on, and a limit of time that is given then holds.
    ended = run_demo(out, recipe=TINY, again=True, seed=2, minutes=7)
    assert isinstance(ended, DemoResult) and not ended.reused
    assert (ended.reason, ended.steps, ended.run) == ("steps", 12, out)
    record = json.loads((out / "regard.json").read_text())
    assert (record["training"]["seed"], record["training"]["minutes"]) == (2, 7)
    assert (out / "model.safetensors").read_bytes() != old
    assert str(out) in (out / "README.md").read_text() and ".run-again" not in (out / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-world"]


def test_again_replaces_nothing_but_a_demo(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else than a demo"):
        run_demo(tmp_path / "run", recipe=TINY, again=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "thesis.txt"]
