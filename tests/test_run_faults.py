"""What goes wrong around a run: a full disk, a second process, an end in the past, names that no file can hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny_data import write_all

from regard.errors import ConfigError, DataError
from regard.runs import train
from regard.tasks.base import DataSize
from regard.tasks.folders import locked, new_run
from regard.tasks.preparation import Reading
from regard.tasks.settings import train_config
from regard.training.events import Warned
from regard.training.journal import Journal

SETTINGS = {
    "width": 16, "num_heads": 2, "num_layers": 1, "precision": "fp32", "steps": 4, "evaluate_every": 2,
    "save_every": 2, "log_every": 1, "warmup": 2,
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(write_all(tmp_path))
    return tmp_path


def run(*data: str, task: str = "classify", warnings: list[str] | None = None, **settings: object):
    def report(event: object) -> None:
        if warnings is not None and isinstance(event, Warned):
            warnings.append(event.text)

    given = {**({} if settings.get("resume") else SETTINGS), **settings}
    return train(task, list(data) or None, report=report, **given)  # type: ignore[arg-type]


def test_a_full_disk_at_a_line_of_metrics(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add, lines, warnings = Journal.add, [0], []

    def full(self: Journal, *arguments: object) -> None:
        lines[0] += 1
        if lines[0] in (2, 3):
            raise OSError(28, "No space left on device")
        add(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "add", full)
    result = run("labels.tsv", out="run", warnings=warnings)
    assert result.training.steps == 4
    assert sum("No space left on device" in text for text in warnings) == 2
    assert len((here / "run" / "metrics.jsonl").read_text().splitlines()) == lines[0] - 2
    assert (here / "run" / "model.safetensors").exists()


def test_half_a_line_of_metrics_does_not_stay(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    journal = Journal(tmp_path / "metrics.jsonl")
    journal.add("train", 1, {"loss": 1.0})
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 9, before[1]))
        with pytest.raises(OSError, match="File too large"):
            journal.add("train", 2, {"loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    journal.add("train", 3, {"loss": 1.0})
    assert [json.loads(line)["step"] for line in journal.path.read_text().splitlines()] == [1, 3]


def test_a_second_process_is_kept_out(here: Path) -> None:
    pytest.importorskip("fcntl")
    run("labels.tsv", out="run")
    before = (here / "run" / "regard.json").read_bytes()
    hold = (
        "import fcntl, os, sys; fcntl.flock(os.open('run', os.O_RDONLY), fcntl.LOCK_EX)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match="another process is training in run"):
            run(out="run", resume=True, steps=6)
        other.communicate("")
    assert (here / "run" / "regard.json").read_bytes() == before
    assert run(out="run", resume=True, steps=6).training.steps == 6


def test_two_preparations_of_one_folder(here: Path) -> None:
    pytest.importorskip("fcntl")
    with new_run("run", "classify") as (_, folder):
        (folder / "mine").write_text("kept")
        with pytest.raises(ConfigError, match="another process"), new_run("run", "classify"):
            pass
        assert (folder / "mine").read_text() == "kept"
        (folder / "regard.json").write_text("{}")
    assert (here / "run" / "mine").read_text() == "kept"
    with locked(here / "run"):
        pass


@pytest.mark.parametrize(("name", "value"), [("steps", 3), ("epochs", 1), ("minutes", 1e-6)])
def test_an_end_that_has_passed(here: Path, name: str, value: float) -> None:
    run("labels.tsv", out="run", steps=12, batch_tokens=64)
    before = {p: p.read_bytes() for p in (here / "run").rglob("*") if p.is_file()}
    warnings: list[str] = []
    with pytest.raises(ConfigError, match=rf"{name}=.* are done already"):
        run(out="run", resume=True, warnings=warnings, **{name: value})
    assert not warnings
    assert {p: p.read_bytes() for p in (here / "run").rglob("*") if p.is_file()} == before


def test_labels_that_differ_in_case(here: Path) -> None:
    rows = (here / "labels.tsv").read_text().replace("man\tother", "man\tOther", 1)
    (here / "case.tsv").write_text(rows)
    warnings: list[str] = []
    run("case.tsv", out="run", warnings=warnings)
    assert any("'Other' and 'other'" in text for text in warnings)
    warnings.clear()
    run("labels.tsv", out="run-2", warnings=warnings)
    assert not warnings


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are bytes on Linux alone")
def test_names_that_are_no_text(here: Path) -> None:
    bad = os.fsdecode(b"labels\xff.tsv")
    (here / bad).write_bytes((here / "labels.tsv").read_bytes())
    with pytest.raises(ConfigError, match="is not valid UTF-8"):
        run(bad, out="run")
    with pytest.raises(ConfigError, match="is not valid UTF-8"):
        run("labels.tsv", valid=[bad], out="run")
    with pytest.raises(ConfigError, match="is not valid UTF-8"):
        run("labels.tsv", out=os.fsdecode(b"runs/\xff"))
    assert not (here / "run").exists() and not (here / "runs").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_place_that_is_no_place_is_not_a_matter_of_room(here: Path) -> None:
    for out in ("/proc/x", "labels.tsv/x"):
        with pytest.raises(DataError, match=r"can't be written: .*; name another --out") as caught:
            run("labels.tsv", out=out)
        assert "room" not in str(caught.value)


def test_a_short_run_has_a_short_warm_up(here: Path) -> None:
    from regard.tasks.registry import get_task

    suited = get_task("translate", None).suit(DataSize(0, 0)).training
    assert suited["warmup"] == 200
    assert train_config(suited, {"steps": 100}).warmup == 10
    assert train_config(suited, {"steps": 3}).warmup == 1
    assert train_config(suited, {"steps": 9000}).warmup == 200
    assert train_config(suited, {"steps": 100, "warmup": 60}).warmup == 60
    warnings: list[str] = []
    run("labels.tsv", out="run", warnings=warnings, warmup=5, reading=Reading())
    assert any("the learning rate rises for 5 steps, and the run has 4" in text for text in warnings)
