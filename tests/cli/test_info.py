"""`regard info`: what is in a run, and the presets."""

from __future__ import annotations

import json

from tests.tiny_data import TINY, write_all

from regard.cli import main
from regard.models.families import PRESETS


def test_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(write_all(tmp_path))
    assert main(["train", "classify", "labels.tsv", "--out", "run", *TINY]) == 0
    capsys.readouterr()
    assert main(["info", "run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["run"] == "run"
    assert said["model"]["width"] == 16
    assert said["model"]["labels"] == ["animal", "other"]
    assert said["training"]["precision"] == "fp32"
    assert said["data"]["training"] == "labels.tsv: 54 rows, 1,052 characters"
    assert said["data"]["validation"].startswith("the last tenth of it: 6 rows")
    assert said["result"]["reason"] == "steps"
    assert main(["info", "run"]) == 0
    shown = capsys.readouterr().out
    for part in ("model:", "tokenizer:", "data:", "training:", "result:", "accuracy"):
        assert part in shown


def test_the_presets(capsys):
    assert main(["info", "--presets", "--json"]) == 0
    assert [row["preset"] for row in json.loads(capsys.readouterr().out)["presets"]] == list(PRESETS)
    assert main(["info", "--presets"]) == 0
    assert "124,439,808" in capsys.readouterr().out  # gpt2, as published
    assert main(["info", "run", "--presets"]) == 2
