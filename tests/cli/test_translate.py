"""`regard translate`: texts, standard input and files; what it prints, and that a killed job goes on."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.small import SENTENCES, make_parts, save, translator

from regard.cli import main
from regard.model import Model

LINES = [*SENTENCES, "", "a\rb", "tab\there", "\u2028", *SENTENCES[::-1], "last"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save(translator(), tmp_path_factory.mktemp("runs") / "translate-1"))


def translated(texts: list[str], **settings: Any) -> list[str]:
    parts = translator()
    model = Model(parts.module, parts.tokenizer, parts.config)  # type: ignore[arg-type]
    return [model.translate(text, **settings).text.replace("\n", " ") for text in texts]


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_texts_give_a_line_each(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", run, "a dog", "a", "--max-tokens", "8"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "".join(f"{text}\n" for text in translated(["a dog", "a"], max_tokens=8))
    assert shown.err == ""


def test_standard_input_gives_a_line_for_a_line(
    run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(monkeypatch, "\r\n".join(LINES).encode())
    assert main(["translate", run, "--max-tokens", "8"]) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == translated(LINES, max_tokens=8)
    feed(monkeypatch, "été\n".encode("latin-1"))
    assert main(["translate", run, "--max-tokens", "8", "--encoding", "latin-1"]) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == translated(["été"], max_tokens=8)
    assert not sys.stdin.closed


def test_the_n_best_stand_below_their_text_with_scores(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["translate", run, "a dog", "--n-best", "3", "--beams", "3", "--max-tokens", "6"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "a dog"
    assert len(others) == 3
    scores = [float(line.split()[0]) for line in others]
    assert scores == sorted(scores, reverse=True)


def test_json_is_one_object(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["translate", run, "a dog", "", "--json", "--n-best", "2", "--beams", "2", "--max-tokens", "6"]
    assert main(words) == 0
    shown = capsys.readouterr()
    first, second = json.loads(shown.out)["translations"]
    assert first["source"] == "a dog"
    assert first["text"] == first["candidates"][0]["text"]
    assert {"score", "source_tokens", "tokens", "finished"} <= set(first)
    assert len(first["candidates"]) == 2
    assert second["text"] == ""


def test_nothing_that_steers_a_terminal_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    parts = make_parts("encoder-decoder", words="byte")
    folder = str(save(parts, tmp_path / "run"))
    texts = ["a dog", "\x1b[31mred", "\u202eabc", "two"]
    assert main(["translate", folder, *texts, "--beams", "3", "--n-best", "3", "--max-tokens", "30"]) == 0
    shown = capsys.readouterr().out
    assert not any(c in shown for c in "\x1b\x07\x08\r\x9b\u202e\x00")
    assert shown.count("\n") == 4 + 12


def test_a_file_is_done_line_by_line(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("\n".join(LINES) + "\n", newline="")
    words = ["translate", run, "--input", str(source), "--output", str(target), "--max-tokens", "8", "--json"]
    assert main(words) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["lines"], found["resumed"], found["bad"]) == (len(LINES), 0, [])
    assert f"{len(LINES)} lines in" in shown.err
    assert target.read_text().split("\n")[:-1] == translated(LINES, max_tokens=8)
    assert main(words) == 2  # never over what is there
    assert "exists already" in capsys.readouterr().err


def test_lines_that_are_too_long_may_be_left_empty(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("a dog\n" + "z" * 70 + "\na\n")
    words = ["translate", run, "--input", str(source), "--output", str(target), "--max-tokens", "5"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert f"{source}:2: has 71 tokens" in said
    assert "--skip-bad-rows" in said
    assert not list(tmp_path.glob("out*"))
    assert main([*words, "--skip-bad-rows"]) == 0
    assert "empty lines left for 2" in capsys.readouterr().out
    assert target.read_text().split("\n") == [*translated(["a dog", "", "a"], max_tokens=5), ""]


# A child with a terminal for its standard error, which ends itself in the k-th write of the output.
CHILD = """
import os, signal, sys
from regard.tasks import bulk
from regard.cli import main
left, whole = int(sys.argv[1]), bulk.run_bulk
def run_bulk(*args, **kwargs):
    return whole(*args, **{**kwargs, "chunk": 3})
def fsync(handle, sync=os.fsync):
    global left
    sync(handle)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
bulk.run_bulk, os.fsync = run_bulk, fsync
sys.exit(main(sys.argv[2:]))
"""


def test_a_killed_job_ends_with_the_same_bytes_and_shows_its_progress(
    run: str, tmp_path: Path, repo: Path
) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("\n".join(LINES), newline="")
    words = ["translate", run, "--input", str(source), "--output", str(target), "--max-tokens", "8"]

    def attempt(kill: int) -> tuple[int, str]:
        ours, theirs = os.openpty()
        environment = {**os.environ, "PYTHONPATH": str(repo / "src"), "TERM": "xterm", "COLUMNS": "100"}
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(kill), *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=theirs,
        ) as child:
            os.close(theirs)
            shown = b""
            while True:
                select.select([ours], [], [])
                try:
                    part = os.read(ours, 65536)
                except OSError:  # the other end is closed
                    part = b""
                if not part:
                    break
                shown += part
            os.close(ours)
            return child.wait(), shown.decode(errors="replace")

    for kill in (5, 12):
        code, _ = attempt(kill)
        assert code == -signal.SIGKILL
        assert target.with_name("out.txt.part").exists()
        assert not target.exists()
    code, shown = attempt(-1)
    assert code == 0, shown
    assert f"{len(LINES)}/{len(LINES)}" in shown
    assert target.read_text().split("\n")[:-1] == translated(LINES, max_tokens=8)
