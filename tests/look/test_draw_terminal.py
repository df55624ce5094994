"""Pictures in a terminal: as wide as it is, with colour where it has some, and words are text."""

from __future__ import annotations

import re
import unicodedata

import pytest
from rich.cells import cell_len
from tests.look.pictures import KINDS, hostile_look, look_at, pictures_of
from tests.look.test_terminal import bare, drawn

from regard.config import Kind
from regard.look.draw import views
from regard.look.draw.terminal import Alignment, Blocks, Heads
from regard.look.draw.text import in_terminal

WAVE = [[(r + c) % 5 / 4 for c in range(6)] for r in range(4)]


def shown(picture: views.Picture, *, width: int = 80, colour: bool = False) -> list[str]:
    lines: list[str] = []
    for thing in in_terminal(picture, width):
        lines += drawn(thing, width=width, colour=colour)
    return lines


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("width", [40, 80, 160])
@pytest.mark.parametrize("kind", KINDS)
def test_every_view_keeps_within_the_width(kind: Kind, width: int, colour: bool) -> None:
    for name, picture in pictures_of(look_at(kind)).items():
        lines = shown(picture, width=width, colour=colour)
        if name != "numbers":
            assert max(cell_len(bare(line)) for line in lines) <= width, name
        assert colour or "\x1b" not in "".join(lines)
        assert picture.title in " ".join(bare(line) for line in lines[:2])


@pytest.mark.parametrize("colour", [True, False])
def test_hostile_words_are_text(colour: bool) -> None:
    for picture in pictures_of(hostile_look()).values():
        text = "\n".join(shown(picture, width=120, colour=colour))
        for character in bare(text).replace("\n", ""):
            assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), repr(character)


def test_an_ascii_stream_gets_ascii() -> None:
    things = [Blocks(WAVE), Heads({"decoder.0": [WAVE]}), Alignment(["a"], ["b", "c"], [[0.4, 0.6]])]
    for thing in things:
        for colour in (True, False):
            assert all(line.isascii() for line in drawn(thing, colour=colour, encoding="ascii"))


def test_blocks_are_two_rows_a_line_in_colour_and_shades_without() -> None:
    plain = drawn(Blocks(WAVE))
    assert [line[2:8] for line in plain] == [" ▒▓██ "[:6], "▒▓██ ▒"[:6], "▓██ ▒▓"[:6], "██ ▒▓█"[:6]]
    coloured = drawn(Blocks(WAVE), colour=True)
    assert len(coloured) == 2 and bare(coloured[0])[2:8].strip("▀▄ ") == ""
    grey, orange = (138, 138, 138), (255, 153, 20)
    assert "38;2;{};{};{}".format(*orange) in coloured[0] and "{};{};{}".format(*grey) not in coloured[0]


def test_a_large_matrix_keeps_its_needle() -> None:
    needle = [[1.0 if (r, c) == (301, 77) else 0.0 for c in range(400)] for r in range(400)]
    lines = drawn(Blocks(needle, height=20), width=60)
    assert len(lines) == 20 and max(map(len, lines)) <= 60
    assert "".join(lines).count("█") == 1 and "█" in lines[301 * 20 // 400]


def test_heads_that_are_too_many_stand_below() -> None:
    lines = drawn(Heads({"decoder.0": [WAVE] * 32, "decoder.10": [WAVE] * 32}), width=80)
    numbers = [int(one) for line in lines if re.fullmatch(r"[\d ]+", line) for one in line.split()]
    assert numbers == list(range(32))
    assert sum("decoder.10" in line for line in lines) > 1


def test_an_alignment_lists_the_strongest_words() -> None:
    lines = drawn(
        Alignment(["le", "chien"], ["the", "dog", "."], [[0.7, 0.02, 0.1], [0.1, 0.85, 0.05]], top=2)
    )
    assert [line.split() for line in lines] == [
        ["le", "→", "the", "0.70", ".", "0.10"],
        ["chien", "→", "dog", "0.85", "the", "0.10"],
    ]


def test_a_row_shows_the_weights_of_the_look() -> None:
    found = look_at("encoder-decoder")
    best = found.row("cross.1", 1, 2).top(1)[0]
    text = "\n".join(shown(views.alignment(found, "cross.1", 1, 2)))
    assert f"{best[1]:.2f}" in text
