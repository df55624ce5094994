"""What a verb writes to a file: by one process, for one model, and never over anything."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest
from tests.cli.verb_models import make
from tests.tasks.small import save

from regard.cli import main
from regard.tasks import bulk


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a folder with two models and a file of lines."""
    save(make("encoder"), tmp_path / "encoder")
    save(make("decoder"), tmp_path / "decoder")
    (tmp_path / "in.txt").write_text("a dog\na cat\n" * 200)
    monkeypatch.chdir(tmp_path)
    return tmp_path


EMBED = ["embed", "encoder", "--input", "in.txt", "--output"]


@pytest.mark.parametrize("out", ["/dev/full", "", "encoder"])
@pytest.mark.parametrize("verb", [EMBED, ["generate", "decoder", "--input", "in.txt", "--output"]])
def test_what_is_no_file_is_never_to_be_removed(
    here: Path, capsys: pytest.CaptureFixture[str], verb: list[str], out: str
) -> None:
    assert main([*verb, out]) == 2
    said = capsys.readouterr().err
    assert "remove" not in said
    assert "no ordinary file" in said or "is a folder" in said


@pytest.mark.parametrize("out", ["out.npy", "out.txt"])
def test_a_second_process_is_kept_out(here: Path, capsys: pytest.CaptureFixture[str], out: str) -> None:
    part = here / f"{out}.part"
    with part.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(b"of the other")
        held.flush()
        assert main([*EMBED, out]) == 2
        assert "being written by another process" in capsys.readouterr().err
        assert part.read_bytes() == b"of the other"


@pytest.mark.parametrize("file", ["tokenizer_config.json", "generation_config.json"])
def test_a_job_does_not_go_on_with_a_changed_model(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    words = ["score", "decoder", "--input", "in.txt", "--output", "out.txt"]
    path = here / "decoder" / file
    path.write_text(path.read_text() if path.is_file() else "{}")
    real = bulk.os.fsync

    def stopped(number: int) -> None:
        real(number)
        if (here / "out.txt.part").stat().st_size:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bulk.os, "fsync", stopped)
        assert main(words) == 130
    assert (here / "out.txt.part").stat().st_size
    capsys.readouterr()
    path.write_text(json.dumps({**json.loads(path.read_text()), "a_key": 1}))
    assert main(words) == 2
    assert "begun with another model" in capsys.readouterr().err


def test_flags_that_do_nothing_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = ["generate", "decoder", "--input", "in.txt", "--output", "out.txt"]
    for words, said in (
        ([*job, "--stream"], "--stream is for texts in a terminal"),
        (["generate", "decoder", "a", "--diverse", "3"], "--diverse 3 groups need as many --beams"),
        (["generate", "decoder", "a", "--beams", "3", "--n-best", "5"], "--n-best 5 is more than --beams 3"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
