"""Attention in a terminal: weights become colours or shades, and no word can steer the terminal."""

from __future__ import annotations

import io
import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from regard.look.draw.terminal import Alignment, Blocks, Heads, Matrix, Row, safe

WORDS = ("The", "animal", "didn't", "cross", "the", "street", "because", "it", "was", "too", "tired", ".")
WEIGHTS = (0.0, 0.81, 0.01, 0.02, 0.0, 0.09, 0.0, 0.04, 0.0, 0.01, 0.02, 0.0)


def drawn(thing: object, *, width: int = 80, colour: bool = False, encoding: str = "utf-8") -> list[str]:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(
        file=stream, width=width, force_terminal=colour, color_system="truecolor" if colour else None,
        legacy_windows=False,
        no_color=not colour, _environ={},
    )  # fmt: skip
    console.print(thing)
    stream.flush()
    return raw.getvalue().decode(encoding).splitlines()


def test_without_colour_weights_are_shades_and_numbers() -> None:
    words, shades, numbers = drawn(Row(WORDS, WEIGHTS, looker=7, numbered=(1, 5)))
    assert words.split() == list(WORDS)
    place = words.index("animal")
    assert shades[place : place + 6] == "██████"
    assert set(shades[words.index("street") :].split()) == {"░░░░░░", "░░"}
    assert numbers[place : place + 4] == "0.81"
    assert numbers[words.index("street") :].strip() == "0.09"


def test_an_ascii_stream_gets_ascii() -> None:
    lines = drawn(Row(WORDS, WEIGHTS, numbered=(1,)), encoding="ascii")
    assert "######" in lines[1]
    assert all(
        line.isascii() for line in [*lines, *drawn(Matrix("ab", "ab", [[0.5, 0.0]] * 2), encoding="ascii")]
    )


def test_with_colour_a_larger_weight_is_nearer_to_orange_and_none_is_bare() -> None:
    words, numbers = drawn(Row(WORDS, WEIGHTS, numbered=(1, 5)), colour=True)
    assert "\x1b[38;2;0;0;0;48;2;" in words
    strong, weak = (words.split(word)[0].rsplit("48;2;", 1)[1].split("m")[0] for word in ("animal", "street"))
    assert int(strong.split(";")[0]) > int(weak.split(";")[0])
    assert words.startswith("  The ")
    assert "0.81" in numbers


@pytest.mark.parametrize("width", [20, 40, 80])
@pytest.mark.parametrize("colour", [True, False])
def test_a_row_keeps_within_the_width(width: int, colour: bool) -> None:
    words = (*WORDS, "a" * 200, "東京" * 30)
    lines = drawn(Row(words, (0.1,) * len(words), numbered=range(len(words))), width=width, colour=colour)
    assert max(cell_len(bare(line)) for line in lines) <= width


def bare(line: str) -> str:
    import re

    return re.sub(r"\x1b\[[\d;]*m", "", line)


def test_a_matrix_shows_per_cents_and_is_left_out_where_it_does_not_fit() -> None:
    matrix = Matrix(WORDS, WORDS, [WEIGHTS] * len(WORDS))
    head, *rows = drawn(matrix)
    assert head.split()[:4] == ["The", "ani", "did", "cro"]
    assert rows[7].split()[:3] == ["it", "·", "81"]
    assert matrix.width == max(cell_len(line) for line in rows) <= 80
    assert not [line for line in drawn(matrix, width=30) if line.strip()]


HOSTILE = ("\x1b[2J", "a\rb", "\u202egnp", "\x9b31m", "[bold]x[/bold]", "\ud800", "x\u2028y", "\U000e0041")


@pytest.mark.parametrize("colour", [True, False])
def test_hostile_words_are_shown_as_text(colour: bool) -> None:
    weights = (1.0,) * len(HOSTILE)
    text = "\n".join(
        line
        for thing in (
            Row(HOSTILE, weights, numbered=(0,)),
            Matrix(HOSTILE, HOSTILE, [weights] * len(HOSTILE)),
        )
        for line in drawn(thing, width=200, colour=colour)
    )
    assert "\\x1b[2J" in text
    assert "[bold]x[/bold]" in text
    assert "\\u202e" in text
    for character in bare(text).replace("\n", ""):
        assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), repr(character)


@given(st.text())
def test_safe_text_is_printable(text: str) -> None:
    shown = safe(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert safe(shown) == shown


@given(st.lists(st.tuples(st.text(max_size=20), st.floats(0, 1)), max_size=12), st.integers(12, 100))
def test_any_row_can_be_drawn(pairs: list[tuple[str, float]], width: int) -> None:
    words, weights = [word for word, _ in pairs], [weight for _, weight in pairs]
    for line in drawn(Row(words, weights, numbered=(0, 1)), width=width):
        assert cell_len(line) <= width


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_shown_as_such(number: float, colour: bool, encoding: str) -> None:
    weights = [[0.2, number], [0.5, 0.5]]
    things = [
        Row("ab", weights[0], numbered=(0, 1)), Matrix("ab", "ab", weights), Blocks(weights), Blocks(weights, width=1),
        Heads({"decoder.0": [weights]}), Alignment("ab", "ab", weights),
    ]  # fmt: skip
    for thing in things[1:5]:
        assert "?" in "".join(drawn(thing, colour=colour, encoding=encoding)) or number == -math.inf
    for thing in (things[0], things[5]):
        assert drawn(thing, colour=colour, encoding=encoding)
