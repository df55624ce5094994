"""Text that can't harm a terminal, and JSON that is alone on standard output."""

from __future__ import annotations

import dataclasses
import io
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regard.cli.show import Output, one_line, plain, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("l'été, 東京, हिन्दी, 👩\u200d💻", "l'été, 東京, हिन्दी, 👩\u200d💻"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb\tc\nd", "a\\x0db\\x09c\\x0ad"),
        ("\x9b31m\x7f\x00", "\\x9b31m\\x7f\\x00"),
        ("abc\u202efdp.exe", "abc\\u202efdp.exe"),
        ("\u2066x\u2069\u200f", "\\u2066x\\u2069\\u200f"),
        ("a\u2028b", "a\\u2028b"),
        ("\udcff", "\\udcff"),
        ("x\U000e0041", "x\\U000e0041"),
    ],
)
def test_printable_examples(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_printable_leaves_nothing_that_steers(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown)
    assert not any(unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF") for c in shown)
    assert not any(unicodedata.bidirectional(c) in ("LRI", "RLI", "FSI", "PDI") for c in shown)
    shown.encode("utf-8")
    assert printable(shown) == shown


@given(st.text(alphabet=st.characters(categories=["L", "M", "N", "P", "S"])))
def test_printable_leaves_letters_alone(text: str) -> None:
    assert printable(text) == text


def test_keep_names_what_stays() -> None:
    assert printable("a\n\x1b\tb", keep="\n") == "a\n\\x1b\\x09b"


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


def output(*, json: bool) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Output(json=json, out=out, err=err), out, err


def test_people_read_standard_output() -> None:
    show, out, err = output(json=False)
    show.line("one \x1b line")
    show.table([{"head": "3.1", "share": 0.5}])
    show.result({"share": 0.5})
    show.note("working")
    assert out.getvalue() == "one \\x1b line\nhead  share\n3.1     0.5\n"
    assert err.getvalue() == "working\n"


def test_under_json_standard_output_holds_one_object_alone() -> None:
    show, out, err = output(json=True)
    show.line("one line")
    show.table([{"a": 1}])
    show.note("working")
    show.result({"name": "é\u202e\x1b", "loss": float("nan"), "path": Path("a") / "b"})
    lines = out.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].isascii()
    assert json.loads(lines[0]) == {"name": "é\u202e\x1b", "loss": None, "path": str(Path("a") / "b")}
    assert "one line" in err.getvalue()
    with pytest.raises(AssertionError, match="one result"):
        show.result({})


def test_the_streams_may_be_redirected_later(capsys: pytest.CaptureFixture[str]) -> None:
    show = Output(json=True)
    show.line("words")
    show.result({"a": 1})
    shown = capsys.readouterr()
    assert shown.out == '{"a": 1}\n'
    assert shown.err == "words\n"


def test_a_table_aligns_wide_characters_and_missing_values() -> None:
    from rich.cells import cell_len

    show, out, _ = output(json=False)
    show.table(
        [{"word": "東京", "count": 12, "tag": "x"}, {"word": "a", "count": None, "tag": "yy"}],
        columns=["word", "count", "tag"],
    )
    lines = out.getvalue().splitlines()
    assert lines == ["word  count  tag", "東京     12  x", "a         -  yy"]
    assert len({cell_len(line[: line.rindex(" ") + 1]) for line in lines}) == 1
    show.table([])
    assert len(out.getvalue().splitlines()) == 3


def test_plain_takes_what_the_commands_hold() -> None:
    @dataclasses.dataclass
    class Score:
        bleu: float
        best: tuple[int, ...]

    given_values = {
        "score": Score(35.0, (1, 2)),
        "numpy": np.float32(0.5),
        "array": np.arange(3),
        "torch": torch.tensor([1.0, float("inf")]),
        "set": {"b", "a"},
        "flag": True,
    }
    assert plain(given_values) == {
        "score": {"bleu": 35.0, "best": [1, 2]},
        "numpy": 0.5,
        "array": [0, 1, 2],
        "torch": [1.0, None],
        "set": ["a", "b"],
        "flag": True,
    }
    with pytest.raises(TypeError, match="object has no form in JSON"):
        plain(object())
