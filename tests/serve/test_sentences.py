"""What the page says of an error: a run's name, and never where this machine keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from regard.errors import CheckpointError
from regard.serve.house import Missing, Settings
from regard.serve.runs_folder import about, summary
from regard.serve.runs_started import Started
from regard.serve.sentences import Sentences, sentences_of
from regard.serve.work import Work


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sentences:
    """Give the sentences of a server that was started in a folder, with its runs below it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    return sentences_of(
        Settings(runs=Path("place/runs"), home=Path("place/runs/.serve"), data=tmp_path / "link")
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("place/runs/classifier has kept no checkpoints; train with --keep 10 to keep ten.",
         "classifier has kept no checkpoints."),
        ("{here}/place/runs/broken/regard.json is damaged.", "broken/regard.json is damaged."),
        ("place/runs/bad/model.safetensors is incomplete: 5 bytes.", "bad/model.safetensors is incomplete: 5 bytes."),
        ("{here}/place/runs is no folder.", "runs is no folder."),
        ("{here}/link/a.tsv and '{here}/elsewhere/b.tsv' differ.", "a.tsv and 'b.tsv' differ."),
        ("place/runs/.serve/uploads/a.tsv:7: no tab.", "a.tsv:7: no tab."),
        ("/other/place/runs/a and my-place/runs/b.", "/other/place/runs/a and my-place/runs/b."),
        ("{here}/place/runs-of-old/a is there.", "{here}/place/runs-of-old/a is there."),
        ("'a; --b' is no label; give x or y.", "'a; --b' is no label; give x or y."),
    ],
)  # fmt: skip
def test_a_path_becomes_a_name(say: Sentences, tmp_path: Path, text: str, said: str) -> None:
    found = say(CheckpointError(text.format(here=tmp_path)))
    assert found == said.format(here=tmp_path)


def test_what_a_client_named_stays_as_it_was_named(say: Sentences) -> None:
    assert say(Missing("there is no model 'place/runs/a'.")) == "there is no model 'place/runs/a'."


def test_without_folders_nothing_is_changed() -> None:
    assert Sentences().plain("/a/b --keep") == "/a/b --keep"
    work = Work(workers=1)
    work.close()
    assert work.say(CheckpointError("/a is damaged.")) == "/a is damaged."


def test_a_damaged_run_and_a_failed_training_are_told_without_their_folders(
    say: Sentences, tmp_path: Path
) -> None:
    folder = tmp_path / "place" / "runs" / "broken"
    folder.mkdir(parents=True)
    (folder / "regard.json").write_text("{")
    assert summary("broken", folder, None, say)["problem"].startswith("broken/regard.json")
    log = tmp_path / "log"
    log.write_text(f"reading {tmp_path}/link/a.tsv\nregard: {tmp_path}/elsewhere/a.tsv:7: no tab.\n")
    started = Started("classify", 2**22 + 5, "never", 0.0, log, code=2)
    told = about("failed", None, started, say)
    assert told["problem"] == "a.tsv:7: no tab."
    assert told["log"] == "reading a.tsv\nregard: a.tsv:7: no tab."
