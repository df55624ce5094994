"""`regard lab`: what it lists, runs, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.lab.trial import trial

from regard.cli import main
from regard.errors import TrainingError
from regard.lab import registry
from regard.lab.claim import Measured, Report, Settings
from regard.lab.table import BEGIN, END


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the lab have two claims, of which one breaks down."""

    def broken(seed: int, settings: Settings, report: Report) -> Measured:
        raise TrainingError("it diverged.")

    known = {"L98": trial(id="L98"), "L99": trial(measure=broken)}
    monkeypatch.setattr(registry, "MODULES", dict.fromkeys(known, "trial"))
    monkeypatch.setattr(registry, "find", known.__getitem__)


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert main(["lab", *words, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_list_is_of_the_committed_results(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "list")["claims"]
    assert [one["id"] for one in found] == list(registry.MODULES)
    assert all(one["question"].endswith("?") and "verdict" in one for one in found)
    assert main(["lab"]) == 0
    shown = capsys.readouterr().out
    assert all(one["question"] in shown for one in found)


def test_a_run_is_listed_where_it_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--size", "smoke", "--seeds", "2", "--out", "mine"]
    (one,) = printed(capsys, "run", "l5", *words)["claims"]
    assert one["id"] == "L5" and one["seeds"] == [1, 2] and one["interval"][0] <= one["effect"]
    assert Path(one["page"]) == Path("mine/L5/index.html") and Path(one["page"]).is_file()
    listed = {entry["id"]: entry["verdict"] for entry in printed(capsys, "list", "--out", "mine")["claims"]}
    assert listed["L5"] == one["verdict"] and listed["L6"] is None
    assert main(["lab", "list", "L5", "--out", "mine"]) == 0
    shown = capsys.readouterr().out
    assert "refuted by: " in shown and "mean" in shown and "alibi" in shown


def test_a_smoke_run_goes_to_a_folder_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "run", "L14", "--size", "smoke"]) == 0
    assert Path("runs/lab-smoke/L14/result.json").is_file() and not Path("runs/lab").exists()


@pytest.mark.usefixtures("two")
def test_one_that_breaks_down_stops_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, "all", "--out", "mine", code=1)
    assert [one["id"] for one in found["claims"]] == ["L98"] and found["failed"] == {"L99": "it diverged."}


@pytest.mark.usefixtures("two")
def test_the_results_go_into_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "run", "L98", "--out", "mine"]) == 0
    Path("doc.md").write_text(f"{BEGIN}{END}")
    assert main(["lab", "list", "--out", "mine", "--document", "doc.md"]) == 0
    text = Path("doc.md").read_text()
    assert "**Holds: the value is 1.20" in text and "(mine/L98/figure.svg)" in text
    assert "Not measured yet: `regard lab run L99`" in text
    Path("doc.md").write_text("nothing")
    assert main(["lab", "list", "--document", "doc.md"]) == 2
    assert "has no place for the results" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "name what to run, such as: regard lab run L5"),
        (["run", "L77"], "'L77' is no claim of the lab"),
        (["run", "L5", "--seeds", "0"], "--seeds 0 is not allowed"),
        (["run", "L5", "--size", "huge"], "huge"),
        (["all", "L5"], "regard lab run L5"),
        (["list", "--seeds", "2"], "--seeds is for run and all"),
        (["list", "--size", "gpu"], "--size is for run and all"),
        (["list", "--out", "nowhere"], "nowhere is no folder"),
        (["run", "L5", "--document", "x.md"], "--document is for list"),
        (["explain"], "explain"),
    ],
)
def test_what_cant_be_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", *words]) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1
