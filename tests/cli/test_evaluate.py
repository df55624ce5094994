"""`regard evaluate`: the task's own measures, on any data of its form."""

from __future__ import annotations

import json

import pytest
from tests.tiny_data import DATA, TINY, write_all

from regard.cli import main
from regard.tasks.registry import TASKS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = write_all(tmp_path_factory.mktemp("evaluate"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(found)
        for task in DATA:
            assert main(["train", task, *DATA[task], "--valid", *DATA[task], "--out", task, *TINY]) == 0
    return found


@pytest.mark.parametrize("task", DATA)
def test_every_task_is_measured(folder, monkeypatch, capsys, task):
    monkeypatch.chdir(folder)
    words = ["evaluate", task, *DATA[task], *(["--beams", "1"] if TASKS[task].writes else [])]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["run"] == task
    record = json.loads((folder / task / "regard.json").read_text())
    for name, value in said["metrics"].items():  # the same rows as at the end of training
        assert value == pytest.approx(record["result"]["metrics"][name], rel=1e-5), name
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert TASKS[task].metric in shown
    if task == "classify":
        assert "true label (rows), answer (columns):" in shown


def test_lower_cased_scores(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["evaluate", "translate", *DATA["translate"], "--beams", "2", "--lowercase", "--json"]) == 0
    assert "case:lc" in json.loads(capsys.readouterr().out)["details"]["signature"]


def test_long_texts_and_unknown_labels(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "long.tsv").write_text("the dog\tanimal\n" + "dog " * 400 + "\tanimal\nthe man\tother\n")
    assert main(["evaluate", "classify", "long.tsv"]) == 2
    told = capsys.readouterr().err
    assert "long.tsv:2: 1 of 3 texts need more than the context" in told
    assert "--context" not in told
    assert main(["evaluate", "classify", "long.tsv", "--skip-long", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["details"]["too_long"] == 1
    (folder / "new.tsv").write_text("the dog\tanimals\n" * 3)
    assert main(["evaluate", "classify", "new.tsv"]) == 2
    assert (
        "new.tsv:1: the label 'animals' does not occur in the training data. did you mean 'animal'?"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("task", [task for task in DATA if not TASKS[task].writes])
@pytest.mark.parametrize("flag", [["--beams", "3"], ["--lowercase"]])
def test_flags_of_texts_that_are_written_are_for_tasks_that_write(folder, monkeypatch, capsys, task, flag):
    monkeypatch.chdir(folder)
    assert main(["evaluate", task, *DATA[task], *flag]) == 2
    assert f"{flag[0][2:]} has no effect on {task}" in capsys.readouterr().err
