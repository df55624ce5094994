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
    for given, encoding in (("a\ndog\n", "utf-8"), ("a\r\ndog\r\n", "utf-16")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode(encoding))))
        assert main(["generate", run, "-", "--encoding", encoding, *SETTINGS]) == 0
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


def test_beams_and_guesses_and_choices(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--max-tokens", "8"]
    assert main(["generate", run, "a dog", "--greedy", *short]) == 0
    greedy = capsys.readouterr().out
    assert greedy == written(["a dog"], temperature=0.0, max_tokens=8)[0] + "\n"
    for guess in (["--lookup", "4"], ["--draft", run]):
        assert main(["generate", run, "a dog", "--greedy", *guess, *short]) == 0
        assert capsys.readouterr().out == greedy
    words = ["--beams", "4", "--diverse", "2", "--length-penalty", "0.5", "--no-repeat-ngram", "2", *short]
    assert main(["generate", run, "a dog", *words, "--n-best", "3"]) == 0
    shown = capsys.readouterr().out.splitlines()
    same = {
        "num_beams": 4,
        "beam_groups": 2,
        "diversity_penalty": 1.0,
        "length_penalty": 0.5,
        "no_repeat_ngram": 2,
    }
    (found,) = generate(writer(), ["a dog"], num_return=3, max_tokens=8, **same)  # type: ignore[arg-type]
    assert shown[0] == "a dog"
    assert [line[12:] for line in shown[1:]] == [c.text.replace("\n", " ") for c in found.candidates]
    assert main(["generate", run, "a dog", "--one-of", "tired", "--one-of", "wide"]) == 0
    assert capsys.readouterr().out in ("a dogtired\n", "a dogwide\n")
    assert main(["generate", run, "a dog", "--bias", "q=9999", "--greedy", *short]) == 0
    assert capsys.readouterr().out == "a dog" + "q" * 8 + "\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bias", "dog"], "is not TEXT=NUMBER"),
        (["--greedy", "--temperature", "1"], "exclude each other"),
        (["--beams", "4", "--stream"], "--stream is for one text"),
        (["--beams", "4", "--diverse", "3"], "--diverse 3 groups need as many --beams"),
        (["--lookup", "99"], "lookup=99"),
        (["--input", "in.txt"], "go together"),
        (["--n-best", "2", "--greedy"], "num_return=2 exceeds num_beams=1"),
    ],
)
def test_flags_that_cannot_be(
    run: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = [] if "--input" in words else ["a"]
    assert main(["generate", run, *prompts, *words]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)


def test_a_file_of_prompts_gives_an_object_a_line(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    prompts = ["a dog", "two birds", "a dog", ""]
    source.write_text("\n".join(prompts) + "\n")
    words = ["generate", run, "--input", str(source), "--output", str(target), "--max-tokens", "9"]
    assert main(words) == 0
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["prompt"] for row in rows] == prompts
    assert rows[0] == rows[2]  # a line's text depends on the line alone
    assert rows[1]["text"] == generate(writer(), ["two birds"], max_tokens=9, seed=0)[0].text
    source.write_text("z" * 60 + "\na\n")
    target.unlink()
    assert main(words) == 2
    assert f"{source}:1: has 60 tokens" in capsys.readouterr().err
