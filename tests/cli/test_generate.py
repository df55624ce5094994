"""`regard generate`: prompts, standard input, streaming in a terminal, one object under --json."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.tasks.small import make_parts, save, writer

from regard.cli import main
from regard.tasks.generate import generate


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save(writer(), tmp_path_factory.mktemp("runs") / "generate-1"))


def written(prompts: list[str], **settings: Any) -> list[str]:
    return [str(found) for found in generate(writer(), prompts, **settings)]


SETTINGS = ["--max-tokens", "40", "--seed", "3"]
SAME = {"max_tokens": 40, "seed": 3}


def test_a_prompt_is_continued_and_the_text_printed_as_it_is(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", run, "a dog\t", *SETTINGS]) == 0
    assert capsys.readouterr().out == written(["a dog\t"], **SAME)[0] + "\n"
    assert main(["generate", run, *SETTINGS]) == 0
    assert capsys.readouterr().out == written([""], **SAME)[0] + "\n"


def test_several_prompts_are_apart(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", run, "a dog", "two", *SETTINGS]) == 0
    assert capsys.readouterr().out == "\n---\n".join(written(["a dog", "two"], **SAME)) + "\n"


def test_streaming_prints_the_same(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", run, "a dog", "--stream", *SETTINGS]) == 0
    assert capsys.readouterr().out == written(["a dog"], **SAME)[0] + "\n"
    free = generate(writer(), ["a dog"], **SAME)[0]  # type: ignore[arg-type]
    assert (
        main(["generate", run, "a dog", "--stream", *SETTINGS, "--stop", free.text[:1], "--stop", "zz"]) == 0
    )
    assert capsys.readouterr().out == "a dog\n"


def test_it_streams_in_a_terminal_and_nowhere_else(
    run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def __init__(self) -> None:
            super().__init__()
            self.pieces: list[str] = []

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            self.pieces.append(text)
            return super().write(text)

    for words, many in (([], True), (["--no-stream"], False)):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        assert main(["generate", run, "a dog", *words, *SETTINGS]) == 0
        assert terminal.getvalue() == written(["a dog"], **SAME)[0] + "\n"
        assert (len(terminal.pieces) > 5) == many


def test_standard_input_is_a_prompt_without_its_last_line_feed(
    run: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\ndog\n"))
    assert main(["generate", run, "-", *SETTINGS]) == 0
    assert capsys.readouterr().out == written(["a\ndog"], **SAME)[0] + "\n"


def test_json_is_one_object(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", run, "a dog", "two", "--json", *SETTINGS]) == 0
    first, second = json.loads(capsys.readouterr().out)["generations"]
    assert first["prompt"] + first["text"] == written(["a dog", "two"], **SAME)[0]
    assert {"score", "prompt_tokens", "tokens", "finished", "windows"} <= set(second)


def test_the_flags_reach_the_search(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--temperature",
        "1.2",
        "--top-k",
        "9",
        "--top-p",
        "0.9",
        "--min-p",
        "0.01",
        "--repetition-penalty",
        "1.2",
    ]
    assert main(["generate", run, "a dog", *words, *SETTINGS]) == 0
    wanted = written(
        ["a dog"], temperature=1.2, top_k=9, top_p=0.9, min_p=0.01, repetition_penalty=1.2, **SAME
    )
    assert capsys.readouterr().out == wanted[0] + "\n"


def test_nothing_that_steers_a_terminal_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = str(save(make_parts("decoder", words="byte"), tmp_path / "run"))
    for stream in ("--stream", "--no-stream"):
        assert (
            main(["generate", folder, "\x1b[2J\u202e", stream, "--max-tokens", "200", "--temperature", "2"])
            == 0
        )
        shown = capsys.readouterr().out
        assert shown.startswith("\\x1b[2J\\u202e")
        assert not any(c in shown for c in "\x1b\x07\x08\r\x9b\u202e\x00")
