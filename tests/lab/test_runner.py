"""Running a claim: what is written, going on, the same numbers again, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.lab.trial import measure, trial

from regard.errors import CheckpointError, ConfigError, DataError, TrainingError
from regard.lab.claim import Measured, Report, Settings
from regard.lab.kept import read_result
from regard.lab.runner import run, run_all


def test_a_run_leaves_a_result_a_figure_and_a_page(tmp_path: Path) -> None:
    result = run(trial(), out=tmp_path)
    folder = tmp_path / "L99"
    assert sorted(path.name for path in folder.iterdir()) == ["figure.svg", "index.html", "result.json"]
    assert json.loads((folder / "result.json").read_text()) == result == read_result("L99", tmp_path)
    assert result["verdict"].startswith("Holds: the value is 1.20 [")
    assert result["effect"] == pytest.approx(1.2) and result["seeds"] == [1, 2, 3]
    low, high = result["interval"]
    assert low < 1.2 < high
    assert result["command"] == "regard lab run L99 --size laptop --seeds 3"
    assert {"commit", "machine", "versions", "threads"} <= set(result)
    assert [one["value"] for one in result["runs"]] == [1.1, 1.2, 1.3] and len(result["seconds"]) == 3


def test_the_same_seeds_give_the_same_result(tmp_path: Path) -> None:
    first, second = (run(trial(), out=tmp_path / name) for name in ("a", "b"))
    times = {"seconds"}
    assert {k: v for k, v in first.items() if k not in times} == {
        k: v for k, v in second.items() if k not in times
    }
    assert (tmp_path / "a/L99/figure.svg").read_bytes() == (tmp_path / "b/L99/figure.svg").read_bytes()


def test_numbers_that_refute_make_a_claim_fail(tmp_path: Path) -> None:
    def negative(seed: int, settings: Settings, report: Report) -> Measured:
        return {**measure(seed, settings, report), "value": -1.0 * seed}

    result = run(trial(measure=negative), out=tmp_path)
    assert result["status"] == "fails" and result["verdict"].startswith("Fails: ")
    assert "Fails: the value" in (tmp_path / "L99/index.html").read_text()


def test_a_run_that_was_stopped_goes_on_with_the_seeds_that_are_missing(tmp_path: Path) -> None:
    asked: list[int] = []

    def stopping(seed: int, settings: Settings, report: Report) -> Measured:
        if seed == 3 and 3 not in asked:
            asked.append(seed)
            raise KeyboardInterrupt
        asked.append(seed)
        return measure(seed, settings, report)

    claim = trial(measure=stopping)
    with pytest.raises(KeyboardInterrupt):
        run(claim, out=tmp_path)
    assert asked == [1, 2, 3] and not (tmp_path / "L99/result.json").exists()
    result = run(claim, out=tmp_path)
    assert asked == [1, 2, 3, 3]
    whole = run(trial(), out=tmp_path / "whole")
    assert {k: v for k, v in result.items() if k != "seconds"} == {
        k: v for k, v in whole.items() if k != "seconds"
    }
    assert not list((tmp_path / "L99").glob("seed-*"))


def test_seeds_of_other_settings_or_broken_ones_are_not_taken(tmp_path: Path) -> None:
    folder = tmp_path / "L99"
    folder.mkdir()
    stale = {"seed": 1, "size": "laptop", "settings": {"base": 7.0}, "seconds": 1.0, "found": {"value": 9.0}}
    (folder / "seed-1.json").write_text(json.dumps(stale))
    (folder / "seed-2.json").write_text("{")
    assert [one["value"] for one in run(trial(), out=tmp_path)["runs"]] == [1.1, 1.2, 1.3]


def test_a_run_measures_anew_and_all_leaves_out_what_is_there(tmp_path: Path) -> None:
    asked: list[int] = []

    def counting(seed: int, settings: Settings, report: Report) -> Measured:
        asked.append(seed)
        return measure(seed, settings, report)

    claim = trial(measure=counting)
    assert run_all([claim], out=tmp_path).ran == ("L99",)
    again = run_all([claim], out=tmp_path)
    assert again.ran == () and again.results["L99"]["effect"] == pytest.approx(1.2) and len(asked) == 3
    assert run_all([claim], seeds=2, out=tmp_path).ran == ("L99",)
    run(claim, seeds=2, out=tmp_path)
    assert len(asked) == 7


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    result = run(trial(), seeds=1, out=tmp_path)
    assert result["interval"] is None and result["verdict"] == "Holds: the value is 1.10 units."


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused_by_its_name(tmp_path: Path, value: float) -> None:
    def broken(seed: int, settings: Settings, report: Report) -> Measured:
        return {"losses": {"8": [1.0, value]}}

    with pytest.raises(TrainingError, match=r"L99, seed 1\.losses\.8\[1\] is (nan|inf)"):
        run(trial(measure=broken), out=tmp_path)
    assert not list((tmp_path / "L99").iterdir())


def test_results_of_two_sizes_dont_share_a_folder(tmp_path: Path) -> None:
    run(trial(), out=tmp_path)
    with pytest.raises(ConfigError, match="holds a result of size laptop; name another"):
        run(trial(), size="smoke", out=tmp_path)
    with pytest.raises(ConfigError, match="holds a result of size laptop; name another"):
        run_all([trial()], size="smoke", out=tmp_path)


def test_what_cant_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--size gpu is not known; choose from laptop, smoke"):
        run(trial(), size="gpu", out=tmp_path)
    with pytest.raises(ConfigError, match="--seeds 0 is not allowed"):
        run(trial(), seeds=0, out=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="can't be made"):
        run(trial(), out=tmp_path / "file")


def test_a_broken_result_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "L99"
    folder.mkdir()
    for text in ("{", "[]", '{"id": "L98"}'):
        (folder / "result.json").write_text(text)
        with pytest.raises(DataError, match="run L99 again"):
            read_result("L99", tmp_path)
    assert read_result("L98", tmp_path) is None
