"""What the comparisons share: turns, medians, a ratio that is better when it is more, and where results lie."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from regard.bench import common, texts
from regard.bench.common import (
    Options,
    alternate,
    is_met,
    read_result,
    results_folder,
    summarize,
    write_result,
)
from regard.errors import CheckpointError, ConfigError, DataError

OPTIONS = Options(rounds=2, seed=3)


def test_sides_take_turns_and_warm_up_is_forgotten() -> None:
    order: list[str] = []
    said: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    sides = {"ours": lambda: side("a"), "peer": lambda: side("b")}
    figures = alternate(sides, rounds=3, warmup=1, report=said.append)
    assert "".join(order) == "baabbaab"
    assert figures == {"ours": [3.0, 6.0, 7.0], "peer": [4.0, 5.0, 8.0]}
    assert len(said) == 8
    with pytest.raises(ConfigError, match="at least 1"):
        alternate({}, rounds=0)


@pytest.mark.parametrize(
    ("better", "figures", "goal", "ratio", "target"),
    [
        ("less", {"ours": [2.0, 1.0, 9.0], "slow": [8.0], "quick": [4.0]}, None, 2.0, None),
        ("more", {"ours": [10.0], "slow": [2.0], "quick": [5.0]}, None, 2.0, None),
        ("more", {"ours": [10.0], "quick": [5.0]}, 4.0, 2.5, 1.0),
        ("less", {"ours": [50.0]}, 100.0, 2.0, 1.0),
        ("more", {"ours": [42.0]}, 21.0, 2.0, 1.0),
        ("less", {"ours": [1.0]}, None, None, None),
    ],
)
def test_without_aims_the_ratio_is_against_the_goal_or_the_best_peer(
    better: Any,
    figures: dict[str, list[float]],
    goal: float | None,
    ratio: float | None,
    target: float | None,
) -> None:
    result = summarize("x", figures, unit="s", better=better, goal=goal, options=OPTIONS)
    assert (result["ratio"], result["target"], result["against"]) == (ratio, target, {})
    assert is_met(result) is (None if target is None else True)
    assert is_met({**result, "ratio": 0.5, "target": 1.0}) is False
    assert is_met({**result, "target": None}) is None
    assert {"ours", "peers", "machine", "versions", "command", "commit", "seed"} <= set(result)


@pytest.mark.parametrize(
    ("better", "own", "met"), [("more", 6.0, True), ("less", 2 / 3, True), ("more", 5.0, False)]
)
def test_the_ratio_is_the_least_of_what_is_reached_of_each_aim(better: Any, own: float, met: bool) -> None:
    rates = {"ours": own, "a fp32": 2.0, "a bf16": 3.0, "a": 1.0, "ab": 60.0, "b Q8": 4.0, "c": 50.0}
    figures = {
        side: [rate if better == "more" or side == "ours" else 4 / rate] for side, rate in rates.items()
    }
    result = summarize("x", figures, unit="s", better=better, aims={"a": 2.0, "b Q8": 1.2}, options=OPTIONS)
    # The best side of "a" counts, and "ab" is none of its sides; "c" and "ab" are not aimed at.
    times = own / 3 if better == "more" else 4 / 3 / own
    assert result["against"] == {
        "a bf16": {"times": pytest.approx(times), "aim": 2.0},
        "b Q8": {"times": pytest.approx(times * 3 / 4), "aim": 1.2},
    }
    assert result["ratio"] == pytest.approx(min(times / 2, times * 3 / 4 / 1.2))
    assert (result["target"], is_met(result), "absent" in result) == (1.0, met, False)
    assert result["peers"].keys() == rates.keys() - {"ours"}


def test_an_aim_whose_peer_is_absent_is_said_and_left_out() -> None:
    figures = {"ours": [6.0], "a": [2.0], "b": [9.0]}
    result = summarize("x", figures, unit="s", better="more", aims={"a": 2.0, "c": 9.0}, options=OPTIONS)
    assert (result["ratio"], result["absent"]) == (1.5, {"c": 9.0})
    assert result["against"] == {"a": {"times": 3.0, "aim": 2.0}}
    result = summarize("x", figures, unit="s", better="more", aims={"c": 9.0}, options=OPTIONS)
    assert (result["ratio"], result["target"], result["against"]) == (None, 1.0, {})
    assert result["absent"] == {"c": 9.0} and is_met(result) is None


def test_our_side_may_have_a_longer_name_and_sides_that_are_no_peers() -> None:
    figures = {"ours bf16": [4.0], "ours fp32": [9.0], "peer": [2.0]}
    result = summarize(
        "x", figures, unit="s", better="more", options=OPTIONS, ours="ours bf16", beside=["ours fp32"]
    )
    assert (result["ours"], result["peers"], result["ratio"]) == (4.0, {"peer": 2.0}, 2.0)


def test_the_command_runs_it_again() -> None:
    options = Options(rounds=2, seed=3, precision="int8", settings={"lengths": (512, 1024), "window": None})
    assert common.command("look", options) == (
        "regard bench look --rounds 2 --seed 3 --precision int8 --set lengths=512,1024"
    )


def test_a_result_is_a_file_that_is_read_again(tmp_path: Path) -> None:
    result = summarize(
        "x", {"ours": [1.0], "peer": [3.0]}, unit="s", better="less", options=OPTIONS, more={"loss": 1.5}
    )
    write_result(result, tmp_path)
    assert read_result("x", tmp_path) == result == json.loads((tmp_path / "x.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    (tmp_path / "y.json").write_text("[")
    (tmp_path / "z.json").write_text('{"name": "x"}')
    assert [read_result(name, tmp_path) for name in ("y", "z", "none")] == [None, None, None]
    with pytest.raises(CheckpointError, match="can't be written"):
        write_result(result, tmp_path / "x.json")


def test_results_lie_in_the_repository_or_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repo: Path
) -> None:
    monkeypatch.chdir(repo)
    assert results_folder() == Path("benchmarks", "results")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert results_folder() == tmp_path / "cache" / "regard" / "bench"


def test_missing_data_is_said_or_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REGARD_SHARED", str(tmp_path))
    with pytest.raises(DataError, match="no data/x: set REGARD_SHARED"):
        texts.shared("data", "x")
    what, found = texts.sentences(5, 0)
    assert (what, len(found), texts.sentences(5, 0)[1]) == ("the demo's world", 5, found)
    assert texts.pairs(4, 1)[1] != texts.pairs(4, 0)[1]
    folder = tmp_path / "data" / "sst2-glue"
    folder.mkdir(parents=True)
    (folder / "dev.tsv").write_text("sentence\tlabel\na fine film \t1\ndull\t0\n")
    assert texts.shared("data") == tmp_path / "data"
    assert texts.sentences(5, 0) == ("SST-2, dev", ["a fine film", "dull"])


def test_words_have_numbers_of_the_vocabulary() -> None:
    ids = texts.numbered("Two dogs, two cats.", 50)
    assert len(ids) == 6
    assert all(2 <= i < 49 for i in ids)
    assert ids[1] != ids[4] and texts.numbered("two", 50) == [ids[3]]


def test_our_own_way_of_waiting_is_no_setting_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from regard.bench.worker import environment

    monkeypatch.setenv("GOMP_SPINCOUNT", "2000")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    given = environment(3, [Path("first")])
    assert "GOMP_SPINCOUNT" not in given and given["OMP_NUM_THREADS"] == "3"
    assert given["PYTHONPATH"].split(os.pathsep) == ["first", str(common.SOURCE), "elsewhere"]
