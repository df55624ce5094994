"""`regard summarize`: texts, standard input and files."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.small import SENTENCES, save, translator

from regard.cli import main
from regard.tasks.summarize import summarize

LONG = " ".join(SENTENCES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save(translator(), tmp_path_factory.mktemp("runs") / "translate-1"))


def summaries(texts: list[str], **settings: Any) -> list[str]:
    return [str(one).replace("\n", " ") for one in summarize(translator(), texts, **settings)]


def test_texts_and_standard_input_give_a_line_each(
    run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--beams", "2", "--max-tokens", "8", "--min-tokens", "2", "--no-repeat-ngram", "2"]
    settings = {"beams": 2, "max_tokens": 8, "min_tokens": 2, "no_repeat_ngram": 2}
    assert main(["summarize", run, "a dog", "a", *words]) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == summaries(["a dog", "a"], **settings)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(SENTENCES).encode())))
    assert main(["summarize", run, *words, "--prefix", "la "]) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == summaries(list(SENTENCES), prefix="la ", **settings)


def test_windows_are_said(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summarize", run, LONG]) == 2
    assert "--windows" in capsys.readouterr().err
    assert main(["summarize", run, LONG, "--windows"]) == 0
    shown = capsys.readouterr()
    assert shown.out.split("\n")[:-1] == summaries([LONG], windows=True)
    assert "overlapping windows, summarised" in shown.err
    assert main(["summarize", run, LONG, "--windows", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["summaries"]
    assert found["windows"] > 1 < found["rounds"]
    assert {"source", "source_tokens", "tokens", "finished", "score"} <= set(found)


def test_a_file_is_done_line_by_line(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("\n".join([*SENTENCES[:3], LONG, ""]))
    words = ["summarize", run, "--input", str(source), "--output", str(target), "--max-tokens", "6"]
    assert main(words) == 2
    assert f"{source}:4: has" in capsys.readouterr().err
    assert main([*words, "--skip-bad-rows"]) == 0
    wanted = summaries(list(SENTENCES[:3]), max_tokens=6)
    assert target.read_text().split("\n") == [*wanted, "", ""]
