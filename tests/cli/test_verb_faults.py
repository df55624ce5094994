"""Every verb against the same faults: names of special tokens, files that are no text, texts beyond the context.

A verb over texts has a row in CASES, and each test below is done for each row.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.cli.verb_models import CONTEXT, MARKS, MASKS, WRITTEN, save_all, tokenizer

from regard.cli import VERBS, main
from regard.errors import DataError
from regard.model import load
from regard.tasks.generate import check_prompts

GREEDY = ("--beams", "1", "--max-tokens", "2")


@dataclass(frozen=True)
class Case:
    """Say how a verb is called: with which model and flags, and how a text of it looks.

    `windows` tells whether it has them for long texts, `reads` which look into a table of tokens is the text's.
    """

    verb: str
    model: str
    flags: tuple[str, ...] = ()
    text: str = "{}"
    windows: bool = True
    output: str = "out.txt"
    reads: int = 1

    def words(self, *more: str) -> list[str]:
        return [self.verb, self.model, *self.flags, *more]

    def given(self, text: str) -> list[str]:
        text = self.text.format(text)
        return ["--message", text] if self.verb == "chat" else [text]


CASES = {
    "translate": Case("translate", "both", GREEDY, windows=False),
    "summarize": Case("summarize", "both", GREEDY),
    "generate": Case("generate", "decoder", ("--greedy", "--max-tokens", "2", "--no-stream"), windows=False),
    "chat": Case("chat", "decoder", ("--temperature", "0", "--max-tokens", "2"), windows=False),
    "classify": Case("classify", "classify"),
    "tag": Case("tag", "tag"),
    "fill": Case("fill", "encoder", text="{} [MASK]"),
    "embed": Case("embed", "encoder"),
    "embed to a matrix": Case("embed", "encoder", output="out.npy"),
    "answer": Case("answer", "span", ("--question", "who?")),
    "score": Case("score", "decoder"),
    "score by an encoder": Case("score", "encoder"),
    "score of a target": Case("score", "both", ("--source", "le"), windows=False, reads=2),
}
ALL = pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.output == "out.txt"])
OF_FILES = pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.verb != "chat"])


def test_every_verb_over_texts_has_its_row() -> None:
    running = {verb for verb, about in VERBS.items() if about.group == "Run"}
    assert {case.verb for case in CASES.values()} == running - {"evaluate", "info", "convert"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with a model for each verb."""
    folder = tmp_path_factory.mktemp("models")
    save_all(folder)
    return folder


@pytest.fixture
def here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in an empty folder from which the models are seen under their names."""
    for model in models.iterdir():
        (tmp_path / model.name).symlink_to(model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


Run = Callable[..., str]


@pytest.fixture
def done(here: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run words that must be done, and give what they print."""

    def run(words: list[str]) -> str:
        code, shown = main(words), capsys.readouterr()
        assert code == 0, shown.err
        return shown.out

    return run


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run words that must be refused in one line, with nothing printed, written or changed; give the line."""

    def run(words: list[str]) -> str:
        before = {path: path.read_bytes() for path in here.iterdir() if path.is_file()}
        code, shown = main(words), capsys.readouterr()
        assert code == 2, shown.err
        assert (shown.out, shown.err.count("\n")) == ("", 1)
        assert (
            shown.err.startswith("regard: ") and "Traceback" not in shown.err and "--debug" not in shown.err
        )
        assert {path: path.read_bytes() for path in here.iterdir() if path.is_file()} == before
        return shown.err

    return run


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def results(shown: str) -> list[dict[str, Any]]:
    """Give the results in what a verb prints under --json."""
    values = json.loads(shown)
    names = ("translations", "summaries", "generations", "replies", "classifications", "taggings", "fillings",
             "embeddings", "answers", "scores")  # fmt: skip
    return next(values[name] for name in names if name in values)


# A name of a special token in a text is text


@contextmanager
def looks() -> Iterator[list[list[list[int]]]]:
    """Collect the ids of each look into a table of tokens: what a model is given."""
    found: list[list[list[int]]] = []

    def see(module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings > 256:
            found.append(given[0].tolist())

    handle = torch.nn.modules.module.register_module_forward_pre_hook(see)
    try:
        yield found
    finally:
        handle.remove()


@ALL
def test_the_name_of_a_special_token_is_plain_text(done: Run, name: str) -> None:
    case, words = CASES[name], tokenizer()
    marks = MARKS if case.verb == "fill" else [*MARKS, *MASKS]  # typed into fill, a mask is one
    special, lengths = [], []
    for text in ("a dog", "a " + " ".join(marks) + " dog"):
        with looks() as found:
            done(case.words(*case.given(text)))
        rows = found[case.reads - 1]
        special.append({frozenset(Counter(i for i in row if i in words.special_ids).items()) for row in rows})
        lengths.append(len(rows[0]))
    assert special[0] == special[1]
    assert lengths[1] > lengths[0] + 3 * len(marks)  # it is there, in letters


# What a verb writes is shown whole, also where a character takes several tokens

WRITERS = {
    "translate": ["translate", "scripted-both", "a dog", "--beams", "1"],
    "summarize": ["summarize", "scripted-both", "a dog", "--beams", "1"],
    "generate": ["generate", "scripted-decoder", "a dog", "--greedy"],
    "chat": ["chat", "scripted-decoder", "--message", "a dog", "--temperature", "0"],
}


class Pieces(io.StringIO):
    """Keep what is written apart, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return len(text)


@pytest.mark.parametrize("verb", WRITERS)
def test_a_character_of_several_tokens_is_shown_whole(
    verb: str, done: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = "a dog" if verb == "generate" else ""
    assert done(WRITERS[verb]) == f"{prompt}{WRITTEN}\n"
    assert [one["text"] for one in results(done([*WRITERS[verb], "--json"]))] == [WRITTEN]
    if verb in ("translate", "summarize"):
        return
    out = Pieces()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        assert main([*WRITERS[verb], *(["--stream"] if verb == "generate" else [])]) == 0
    assert "".join(out.pieces) == f"{prompt}{WRITTEN}\n"
    assert [piece.removeprefix(prompt) for piece in out.pieces if piece.strip()] == list(WRITTEN)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_streamed_text_is_the_whole_text(done: Run, seed: str) -> None:
    """Fresh weights write bytes that make no characters, and parts of some; the text is the same either way."""
    words = ["generate", "decoder", "a dog", "--seed", seed, "--temperature", "2", "--max-tokens", "60"]
    whole = done([*words, "--no-stream"])
    assert done([*words, "--stream"]) == whole and "\N{REPLACEMENT CHARACTER}" in whole


# Files that are no text, or not only


LINES = ["a dog", "two birds sing", "it was wide"]


def write_input(case: Case, lines: list[str], encoding: str = "utf-8", end: str = "\n") -> None:
    text = end.join(case.text.format(line) if line else "" for line in lines)
    Path("in.txt").write_bytes(text.encode(encoding))


def job(case: Case, *more: str) -> list[str]:
    return case.words("--input", "in.txt", "--output", case.output, *more)


def take(case: Case) -> list[Any]:
    """Give what was written, a line a text, None for one that was left out; and remove it."""
    path = Path(case.output)
    if path.suffix == ".npy":
        found = [None if np.isnan(row).all() else row.tolist() for row in np.load(path)]
    else:
        found = [line or None for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    path.unlink()
    return found


@OF_FILES
def test_marks_ends_and_encodings_change_no_text(done: Run, name: str) -> None:
    case, found = CASES[name], []
    for encoding, end, flags in (
        ("utf-8", "\n", []), ("utf-8-sig", "\r\n", []), ("utf-16", "\r\n", ["--encoding", "utf-16"]),
    ):  # fmt: skip
        write_input(case, LINES, encoding, end)
        done(job(case, *flags))
        found.append(take(case))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == len(LINES) and None not in found[0]


BAD: dict[str, tuple[bytes, str]] = {
    "another encoding": (b"\xe9t\xe9", "in.txt:2: byte"),
    "a NUL": (b"a\0b", "in.txt:2: a NUL character"),
    "too long": (b"z" * 400, "in.txt:2: has "),
}


@OF_FILES
def test_a_bad_line_is_named_or_left_out(done: Run, refused: Run, name: str) -> None:
    """Nothing is done where one line is bad; with --skip-bad-rows the others are what they are without it."""
    case = CASES[name]
    write_input(case, [LINES[0], LINES[2]])
    done(job(case))
    first, last = take(case)
    good = [case.text.format(line).encode() for line in (LINES[0], LINES[2])]
    for bad, said in BAD.values():
        Path("in.txt").write_bytes(b"\n".join([good[0], case.text.encode().replace(b"{}", bad), good[1]]))
        assert said in refused(job(case))
        assert "2" in done(job(case, "--skip-bad-rows")).rpartition(";")[2]
        assert take(case) == [first, None, last]
    Path("in.txt").write_bytes(b"")
    assert "in.txt is empty" in refused(job(case))
    assert "in.txt is empty" in refused(job(case, "--skip-bad-rows"))
    Path("in.txt").write_bytes(good[0])
    Path(case.output).write_text("mine")
    assert f"{case.output} exists already" in refused(job(case))


@OF_FILES
def test_an_empty_line_keeps_its_place(done: Run, refused: Run, name: str) -> None:
    case = CASES[name]
    write_input(case, [LINES[0], LINES[2]])
    done(job(case))
    first, last = take(case)
    write_input(case, [LINES[0], "", LINES[2]])
    if case.verb == "fill":
        assert "in.txt:2: has no mask" in refused(job(case))
    done(job(case, *(["--skip-bad-rows"] if case.verb == "fill" else [])))
    found = take(case)
    assert (len(found), found[0], found[2]) == (3, first, last)
    if case.verb in ("translate", "summarize", "fill"):
        assert found[1] is None


@ALL
def test_standard_input_that_is_no_text(
    done: Run, refused: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    words = case.words("-") if case.verb == "generate" else case.words()
    feed(monkeypatch, case.text.format("a dog").encode())
    plain = done(words)
    feed(monkeypatch, b"\xef\xbb\xbf" + case.text.format("a dog").encode() + b"\r\n")
    assert done(words) == plain
    feed(monkeypatch, b"")
    assert "there is no text" in refused(words)
    feed(monkeypatch, b"\xe9t\xe9 [MASK]")
    assert "standard input" in (said := refused(words)) and "utf-8" in said


@ALL
def test_a_bad_line_of_standard_input_is_named(
    here: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    words = case.words("-") if case.verb == "generate" else case.words()
    good = case.text.format("a dog").encode()
    for bad in (b"a\0b", b"\xe9t\xe9"):
        feed(monkeypatch, b"\n".join([good, bad, good]))
        assert main(words) == 2
        assert "standard input, line 2: " in capsys.readouterr().err


# Texts beyond the context


@ALL
def test_a_text_beyond_the_context_is_refused_with_its_length(done: Run, refused: Run, name: str) -> None:
    """One token more is too many, one less is not; where the verb has windows, they take it."""
    case = CASES[name]
    said = refused(case.words(*case.given("z" * 400)))
    found = re.search(r"(?:has|takes?) (\d+) tokens", said)
    assert found and f" {CONTEXT}" in said
    most = 400 - int(found[1]) + CONTEXT
    assert f" {CONTEXT + 1} tokens" in refused(case.words(*case.given("z" * (most + 1))))
    done(case.words(*case.given("z" * most)))
    assert ("--windows" in said) == case.windows
    if case.windows:
        (result,) = results(done(case.words(*case.given("z" * 400), "--windows", "--json")))
        assert result["windows"] > 1
    else:
        assert "horten it" in said or "Split it" in said


def test_a_conversation_beyond_the_context_says_what_it_leaves_out(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = CASES["chat"].words(*(word for _ in range(6) for word in ("--message", "z" * 30)))
    assert main(words) == 0
    assert "the context is full: the oldest" in capsys.readouterr().err


@pytest.mark.parametrize(
    "settings", [{"num_return": 2, "num_beams": 2, "max_tokens": 20}, {"one_of": ["dog", "mouse"]}]
)
def test_a_prompt_without_room_for_what_must_follow_is_found_beforehand(
    models: Path, settings: dict[str, Any]
) -> None:
    model = load(models / "decoder")
    asked = {key: value for key, value in settings.items() if key != "num_beams"}
    prompts = ["z" * length for length in (CONTEXT - 25, CONTEXT - 1, CONTEXT, CONTEXT + 1)]
    found = check_prompts(model.parts, prompts, **asked)
    for number, prompt in enumerate(prompts):
        if number in found:
            with pytest.raises(DataError, match=re.escape(found[number])):
                model.generate(prompt, **settings)
        else:
            model.generate(prompt, **settings)
    assert set(found) == {1, 2, 3}


MIXED = {
    "generate": (["generate", "decoder", "--beams", "2", "--n-best", "2", "--max-tokens", "20"],
                 ["a", "z" * CONTEXT, "z" * 400, "b"]),
    "classify": (["classify", "classify", "--pairs"], ["a\tb", "alone", "z" * 400 + "\ta", "c\td"]),
}  # fmt: skip


@pytest.mark.parametrize("verb", MIXED)
def test_lines_with_different_faults_are_left_out(done: Run, verb: str) -> None:
    words, lines = MIXED[verb]
    Path("in.txt").write_text("\n".join(lines))
    done([*words, "--input", "in.txt", "--output", "out.txt", "--skip-bad-rows"])
    assert [bool(line) for line in Path("out.txt").read_text().split("\n")[:-1]] == [True, False, False, True]
