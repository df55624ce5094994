"""What the benchmarks share: turns, medians, and a ratio that is better when it is more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import common


def test_sides_take_turns_and_warm_up_is_forgotten() -> None:
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    figures = common.alternate({"ours": lambda: side("a"), "peer": lambda: side("b")}, rounds=3, warmup=1)
    assert "".join(order) == "baabbaab"
    assert figures == {"ours": [3.0, 6.0, 7.0], "peer": [4.0, 5.0, 8.0]}
    with pytest.raises(SystemExit, match="at least 1"):
        common.alternate({}, rounds=0)


@pytest.mark.parametrize(
    ("better", "figures", "ratio"),
    [
        ("less", {"ours": [2.0, 1.0, 9.0], "slow": [8.0], "quick": [4.0]}, 2.0),
        ("more", {"ours": [10.0], "slow": [2.0], "quick": [5.0]}, 2.0),
        ("less", {"ours": [1.0]}, None),
    ],
)
def test_the_ratio_is_against_the_best_peer(
    better: str, figures: dict[str, list[float]], ratio: float
) -> None:
    result = common.summarize("x", figures, unit="s", better=better, target=1.5, seed=3)  # type: ignore[arg-type]
    assert result["ratio"] == ratio
    assert {
        "name",
        "ours",
        "peers",
        "ratio",
        "target",
        "machine",
        "versions",
        "command",
        "commit",
        "seed",
    } <= set(result)


def test_a_result_is_one_object_and_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = common.summarize(
        "x", {"ours": [1.0], "peer": [3.0]}, unit="s", better="less", seed=0, more={"loss": 1.5}
    )
    common.finish(result, json=True, folder=tmp_path)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "x.json").read_text()) == result
    assert printed["loss"] == 1.5
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    common.finish(result, json=False, folder=tmp_path)
    assert "ratio 3; more is better" in capsys.readouterr().out


def test_missing_data_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REGARD_SHARED", str(tmp_path))
    with pytest.raises(SystemExit, match="no data/x"):
        common.shared("data", "x")
    (tmp_path / "data").mkdir()
    assert common.shared("data") == tmp_path / "data"


def test_every_benchmark_has_the_common_command_line(repo: Path) -> None:
    for path in sorted((repo / "benchmarks").glob("*.py")):
        if path.name != "common.py":
            assert "finish(" in path.read_text(encoding="utf-8"), f"{path.name} does not end with finish()"
