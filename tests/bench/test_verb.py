"""`regard bench`: what it lists, runs, refuses and writes."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from regard.bench import classify
from regard.bench.common import Options, summarize
from regard.bench.registry import COMPARISONS, Comparison, find, read_settings
from regard.bench.table import BEGIN, END, comparisons, last_results, markdown, put_table, side_rows
from regard.cli import main
from regard.errors import ConfigError

KEYS = {"name", "ours", "peers", "ratio", "target", "unit", "better", "runs", "command", "seed"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """Let `classify` do nothing but remember how it was asked; ours is twice as good."""
    asked: list[Options] = []

    def run(comparison: Comparison, options: Options) -> dict[str, Any]:
        asked.append(options)
        options.report("at work")
        figures = {"ours bf16": [8.0, 8.0], "transformers fp32": [4.0, 4.0], "transformers bf16": [2.0, 2.0]}
        sides = {
            "ours bf16": {"peak_mib": 100.0, "bandwidth_share": 0.5},
            "transformers fp32": {"peak_mib": 300.0},
        }
        more = {"sides": sides, "left_out": {"other": "other is not installed"}}
        return summarize(
            comparison.name, figures, unit="sentences/s", better="more", options=options, aims=comparison.aims,
            ours="ours bf16", more=more,
        )  # fmt: skip

    monkeypatch.setattr(classify, "run", run)
    return asked


def test_every_comparison_has_its_file_and_a_line() -> None:
    for name, one in COMPARISONS.items():
        assert one.name == name and 10 < len(one.about) <= 70
        module = import_module(f"regard.bench.{one.module}")
        assert callable(module.run) and module.__doc__
        assert all(aim > 0 for aim in one.aims.values())
        # Every aim is at a peer of the comparison, and no side is aimed at twice.
        assert all(any(f"{aim} ".startswith(f"{peer} ") for peer in one.peers) for aim in one.aims)
        assert not any(a != b and f"{a} ".startswith(f"{b} ") for a in one.aims for b in one.aims)
        assert one.rounds >= 1
    assert {"decode-bf16", "decode-int8", "decode-int4", "translate", "classify", "start"} <= {
        name for name, one in COMPARISONS.items() if one.quick
    }


def test_without_a_name_they_are_listed(capsys: pytest.CaptureFixture[str], quick: list[Options]) -> None:
    assert main(["bench"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMPARISONS)
    assert "not run here" in shown and "llama.cpp F16: aim 1" in " ".join(shown.split())
    assert main(["bench", "classify", "--rounds", "2"]) == 0
    capsys.readouterr()
    assert main(["bench", "--last", "classify"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "classify" in line]
    assert "transformers bf16: 4 × (aim" in line and line.split()[-1] == "yes"
    assert len(quick) == 1


def test_a_run_shows_every_side(capsys: pytest.CaptureFixture[str], quick: list[Options]) -> None:
    assert main(["bench", "classify", "--seed", "5", "--threads", "3", "--precision", "fp32"]) == 0
    shown = capsys.readouterr()
    assert quick[0].seed == 5 and quick[0].threads == 3 and quick[0].precision == "fp32"
    assert quick[0].rounds == COMPARISONS["classify"].rounds
    rows = [line.split() for line in shown.out.splitlines()]
    assert ["ours", "bf16", "8", "100", "50", "%", "-", "-"] in rows
    assert ["transformers", "fp32", "4", "300", "-", "2", "-"] in rows
    assert ["transformers", "bf16", "2", "-", "-", "4", "1.8"] in rows
    assert "left out: other, other is not installed" in shown.out
    assert "against transformers bf16: 4 × (aim 1.8); more is better, met: yes" in shown.out
    assert "at work" in shown.err


def test_json_is_one_object(capsys: pytest.CaptureFixture[str], quick: list[Options], tmp_path: Path) -> None:
    assert main(["bench", "classify", "--json", "--out", "kept", "--set", "sentences=12"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["benchmarks"]
    assert found.keys() >= KEYS and (found["ratio"], found["target"]) == (4.0 / 1.8, 1.0)
    assert quick[0].settings == {"sentences": 12}
    assert json.loads((tmp_path / "kept" / "classify.json").read_text()) == found
    assert main(["bench", "--json", "--last", "--out", "kept"]) == 0
    assert json.loads(capsys.readouterr().out) == {"benchmarks": [found]}
    assert main(["bench", "--json", "--last"]) == 0
    assert json.loads(capsys.readouterr().out) == {"benchmarks": []}


def test_json_alone_runs_the_quick_ones_and_goes_on_after_a_failure(
    capsys: pytest.CaptureFixture[str], quick: list[Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(comparison: Comparison, options: Options) -> dict[str, Any]:
        raise ConfigError(f"not {comparison.name}")

    for module in {one.module for one in COMPARISONS.values()} - {"classify"}:
        monkeypatch.setattr(import_module(f"regard.bench.{module}"), "run", refuse)
    assert main(["bench", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["benchmarks"]] == ["classify"]
    assert set(found["failed"]) == {n for n, one in COMPARISONS.items() if one.quick} - {"classify"}
    assert main(["bench", "--all", "--json"]) == 1
    assert set(json.loads(capsys.readouterr().out)["failed"]) == set(COMPARISONS) - {"classify"}


def test_tiny_figures_are_not_kept(quick: list[Options], tmp_path: Path) -> None:
    assert main(["bench", "classify", "--tiny"]) == 0
    assert not list(tmp_path.rglob("classify.json"))
    assert main(["bench", "classify"]) == 0
    assert (tmp_path / "cache" / "regard" / "bench" / "classify.json").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clasify"], "unknown comparison 'clasify'; did you mean 'classify'?"),
        (["zzz"], "unknown comparison 'zzz'; choose from decode-bf16, "),
        (["classify", "--rounds", "0"], "--rounds 0 is not allowed"),
        (["classify", "--rounds", "2.5"], "2.5 is not a whole number"),
        (["classify", "--threads", "0"], "--threads 0 is not allowed"),
        (["classify", "--seed", "-1"], "--seed -1 is not allowed"),
        (["classify", "--precision", "int3"], "--precision int3 is not known; choose from fp32, bf16"),
        (["serve", "--precision", "int8"], "serve compares no precisions"),
        (["classify", "--set", "sentences"], "--set sentences is no setting; give NAME=VALUE"),
        (["classify", "--set", "sentence=3"], "no setting 'sentence'; did you mean 'sentences'?"),
        (["start", "--set", "zzz=3"], "start has no setting 'zzz'; it has no settings."),
        (
            ["classify", "--set", "sentences=many"],
            "sentences=many is not allowed for classify; give one such as 256.",
        ),
        (
            ["look", "--set", "lengths=512,x"],
            "lengths=512,x is not allowed for look; give one such as 512,1024,",
        ),
        (["translate", "--set", "sentences=0"], "sentences=0 is not allowed"),
        (["look", "--set", "forward=1"], "forward=1 is not allowed"),
        (["classify", "start", "--set", "sentences=3"], "--set is for one comparison"),
        (["--rounds", "3"], "--rounds needs the name of a comparison"),
        (["--last", "classify", "--rounds", "3"], "--rounds has no effect with --last"),
        (["--all", "classify"], "--all runs every comparison"),
        (["--table", "none.md"], "none.md can't be read"),
        (["--table", "none.md", "classify"], "--table only writes a document"),
        (["load", "--set", "models=gpt3"], "models=gpt3 is not known; did you mean 'gpt2'?"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: list[str], said: str, quick: list[Options], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["bench", *words]) == 2
    shown = capsys.readouterr()
    assert not shown.out and said in shown.err.splitlines()[-1]
    assert "Traceback" not in shown.err and not quick
    assert not list(tmp_path.rglob("*.json"))


def test_without_its_peer_loading_has_no_models(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("regard.bench.load.is_installed", lambda _: False)
    assert main(["bench", "load"]) == 2
    assert "transformers, which writes the models, is not installed" in capsys.readouterr().err


def test_a_long_look_without_its_peer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from regard.bench import look

    monkeypatch.setattr(look, "is_installed", lambda _: False)
    monkeypatch.setattr(look, "measure", lambda side, length, *_: {"capture_s": length / 100})
    found = look.run(find("look"), Options(rounds=2, settings={"lengths": (100, 200), "layers": 3}))
    assert found["left_out"] == {"transformers": "transformers is not installed"}
    assert (found["name"], found["ours"], found["peers"]) == ("look-3-layers", 2.0, {})
    assert list(found["lengths"]) == ["100", "200"]


def test_settings_are_read_as_what_they_are() -> None:
    look = find("look")
    assert read_settings(look, {"lengths": "512, 1024", "forward": "true", "layers": "1"}) == {
        "lengths": (512, 1024), "forward": True, "layers": 1,
    }  # fmt: skip
    assert read_settings(find("serve"), {"seconds": "2"}) == {"seconds": 2.0}


def test_the_table_stands_between_the_marks(tmp_path: Path, quick: list[Options]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert main(["bench", "classify", "--out", "kept"]) == 0
    assert main(["bench", "--table", "page.md", "--out", "kept"]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| 8 sentences/s | transformers bf16: 4 × (aim 1.8) | yes |" in text
    assert put_table(page, Path("kept")) is False
    page.write_text("no marks")
    assert main(["bench", "--table", "page.md"]) == 2


def test_the_sides_of_a_time_are_turned_round() -> None:
    result = summarize(
        "start", {"ours": [1.0], "a": [4.0], "b": [2.0]}, unit="s", better="less", options=Options()
    )
    assert [(row["side"], row["ours/theirs"]) for row in side_rows(result)] == [
        ("ours", None),
        ("b", 2.0),
        ("a", 4.0),
    ]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"against": {"a": {"times": 2.4, "aim": 2.2}}, "absent": {"b Q4": 1.2}, "ratio": 1.1, "target": 1.0},
         ["a: 2.4 × (aim 2.2)", "b Q4: absent (aim 1.2)"]),
        ({"against": {}, "absent": {"b Q4": 1.2}, "ratio": None, "target": 1.0}, ["b Q4: absent (aim 1.2)"]),
        ({"against": {}, "goal": 35.0, "ratio": 1.1, "target": 1.0}, ["1.1 × the goal of 35"]),
        # Results of the time before there were aims.
        ({"ratio": 2.36, "target": 2.0}, ["quick: 2.36 × (aim 2)"]),
        ({"ratio": 6.557, "target": None}, ["quick: 6.56 ×"]),
        ({"ratio": None, "target": None}, []),
    ],
)  # fmt: skip
def test_how_ours_compares_is_said(result: dict[str, Any], said: list[str]) -> None:
    peers = {"slow": 9.0, "quick": 3.0}
    assert comparisons({"peers": peers, "better": "less", **result}) == said


def test_the_readme_has_what_the_results_give(repo: Path) -> None:
    results = last_results(repo / "benchmarks" / "results")
    assert results
    for result in results:
        assert result.keys() >= KEYS and result["command"].startswith("regard bench ")
    text = (repo / "README.md").read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0].strip() == markdown(results)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train-base", "train-gpt2"])
def test_a_tiny_training_in_whole(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    words = ["--tiny", "--threads", "1", "--rounds", "1", "--set", "steps=1"]
    assert main(["bench", name, *words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["benchmarks"]
    assert found["against"].keys() == found["peers"].keys() == set(COMPARISONS[name].peers)
    assert found["ratio"] > 0 and found["steps"] == 1
    assert all(side["peak_mib"] > 1 and side["arithmetic_share"] > 0 for side in found["sides"].values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["decode-bf16", "decode-batch8", "prefill", "translate", "classify", "start"]
)
def test_a_tiny_comparison_in_whole(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    words = ["--tiny", "--precision", "fp32", "--threads", "1", "--rounds", "1", "--models", "models"]
    assert main(["bench", name, *words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["benchmarks"]
    assert found["name"] == name and found["ratio"] > 0
    assert {"transformers fp32", "transformers bf16"} <= set(found["peers"])
    assert all(side["peak_mib"] > 1 for side in found["sides"].values())
    assert all(
        side.get("difference", 0) is None or side.get("difference", 0) < 0.7
        for side in found["sides"].values()
    )
