"""Sides as processes: answers, libraries that are missing, sides that break, and models that are not the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regard.bench import contest as contests
from regard.bench.common import Options
from regard.bench.contest import Outcome, Side, contest
from regard.bench.decode import apart
from regard.bench.worker import SideError, Worker, peak_mib
from regard.errors import DependencyError

FAKE = "tests.bench.fake:Side"
LIMITS = {"bandwidth": 1e9, "fp32": 1e9, "bf16": 4e9}


@pytest.fixture(autouse=True)
def found_there(monkeypatch: pytest.MonkeyPatch, repo: Path) -> None:
    """Let the processes find the tests, and measure no machine."""
    monkeypatch.setenv("PYTHONPATH", str(repo))
    monkeypatch.setattr(contests, "measured", lambda *_: LIMITS)


def side(label: str, library: str | None = None, precision: str = "fp32", **arguments: Any) -> Side:
    return Side(label, FAKE, precision, arguments, library)


def run(*sides: Side, **more: Any) -> Outcome:
    return contest(sides, side("reference"), Options(rounds=2, threads=3), difference=apart, **more)


def test_a_side_answers_from_its_own_process() -> None:
    with Worker("one", FAKE, {"logit": 2.0}, threads=1) as worker:
        assert worker.ready["load_s"] >= 0
        found = worker.ask("check")
        assert found["logits"] == [[2.0, 3.0]]
        mine = peak_mib()
        assert mine is not None and 1 < found["peak_mib"] < mine  # this process holds torch, that one nothing


@pytest.mark.parametrize(
    ("arguments", "target", "said"),
    [
        ({"fault": "start"}, FAKE, "one: ValueError: no such weights"),
        ({"wrong": 1}, FAKE, "one: TypeError: .*unexpected keyword argument 'wrong'"),
        ({}, "tests.bench.fake:Nothing", "one: AttributeError"),
    ],
)
def test_a_side_that_can_not_start_says_why(arguments: dict[str, Any], target: str, said: str) -> None:
    with pytest.raises(SideError, match=said):
        Worker("one", target, arguments, threads=1)


def test_a_side_that_breaks_says_its_last_line() -> None:
    with (
        Worker("one", FAKE, {"fault": "run"}, threads=1) as worker,
        pytest.raises(SideError, match="one: it broke"),
    ):
        worker.ask("run")


def test_a_contest_gives_rates_memory_and_shares() -> None:
    outcome = run(side("ours"), side("peer", "peer", "bf16"), weights_read=1000, reads=0.5, products=100)
    assert {label: len(figures) for label, figures in outcome.figures.items()} == {"ours": 2, "peer": 2}
    for label, size, peak in (("ours", 4, 1e9), ("peer", 2, 4e9)):
        one = outcome.sides[label]
        assert one["difference"] == 0 and one["peak_mib"] > 1
        assert one["bandwidth_share"] == pytest.approx(one["figure"] * size * 500 / 1e9)
        assert one["arithmetic_share"] == pytest.approx(one["figure"] * 200 / peak)
    assert outcome.left_out == {}


def test_a_peer_that_is_not_installed_is_left_out_and_ours_is_not() -> None:
    outcome = run(side("ours"), side("peer", "peer", fault="library"))
    assert list(outcome.figures) == ["ours"]
    assert outcome.left_out == {"peer": "a_library_that_is_not_installed is not installed"}
    with pytest.raises(DependencyError, match="is not installed"):
        run(side("ours", fault="library"))


def test_another_model_is_refused_before_anything_is_timed() -> None:
    with pytest.raises(SideError, match=r"peer differs from ours in fp32 by .*: it is not the same model"):
        run(side("ours"), side("peer", "peer", logit=1.5))
    outcome = run(side("ours"), side("peer", "peer", "int4", logit=1.5))
    assert 0.1 < outcome.sides["peer"]["difference"] < 0.7


def test_how_far_logits_are_apart() -> None:
    truth = {"logits": [[0.0, 2.0], [1.0, 1.0]]}
    assert apart(truth, truth) == 0
    assert apart({"logits": [[1.0, 3.0], [2.0, 2.0]]}, truth) == pytest.approx(2**0.5)
    assert apart({"logits": None}, truth) is None
