import json

import pytest
from tests.training.tiny import make_trainer, settings

from regard.errors import DataError
from regard.training.curves import draw_curves
from regard.training.journal import Journal


def test_draws_a_run(tmp_path):
    make_trainer(tmp_path, settings(steps=20)).train()
    picture = draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", title="a $run$")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000


def test_draws_a_metric_of_its_own_and_gaps(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    for step in range(1, 40):
        loss = float("nan") if step == 7 else 5 / step
        journal.add("train", step, {"loss": loss + 1, "nll": loss, "lr": 1e-3 / step})
        if step % 10 == 0:
            journal.add("valid", step, {"nll": 5.5 / step, "bleu": float(step), "improved": True})
    draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", metric="bleu")
    assert (tmp_path / "curves.png").exists()


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(DataError, match="no measurements"):
        draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_journal_rewinds_and_survives_a_cut_line(tmp_path):
    journal = Journal(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        journal.add("train", step, {"loss": float("inf"), "text": "ü"})
        journal.add("valid", step, {"nll": 1.5})
    with journal.path.open("a") as file:
        file.write('{"kind": "train", "st')
    journal.rewind(logged=2, evaluated=1)
    assert [(line["kind"], line["step"]) for line in journal.read()] == [
        ("train", 1),
        ("valid", 1),
        ("train", 2),
    ]
    for line in journal.path.read_text().splitlines():
        assert json.loads(line)["step"] <= 2
    assert journal.read()[0]["loss"] is None
