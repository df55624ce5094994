"""What a person sees of a run: plain lines, and the live picture at every width."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from regard.cli.display import Display
from regard.cli.show import Output
from regard.tasks.preparation import Prepared, Working
from regard.training.events import Evaluated, Started, Stepped, Warned

EVENTS = [
    Working("reading the data", None, 1200),
    Working("tokenising", 0.25, 300),
    Prepared(Path("runs/translate-1"), "29,000 rows to train on, 1,014 rows held out; 8,000 tokens (bpe)"),
    Started(0, 500, 0, 4_035_584, "cpu", "fp32", None),
    Stepped(10, 500, 0, 8.2, 8.1, 1e-3, 1.0, 8_100.0, 12.0, 600.0),
    Evaluated(10, {"bleu": 1.25, "chrf": 12.0}, True, "a dog\n\n→ \x1b[31mein Hund\x07"),
    Stepped(20, 500, 0, 7.2, 7.1, 1e-3, 1.0, 8_200.0, 24.0, 590.0),
    Evaluated(20, {"bleu": 2.5, "chrf": 14.0}, False, "→ ein Hund"),
    Working("evaluating"),
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_where_there_is_no_terminal():
    out, err = io.StringIO(), io.StringIO()
    with Display(Output(out=out, err=err), "translate") as display:
        for event in EVENTS:
            display(event)
        assert display.path == Path("runs/translate-1")
    assert out.getvalue().splitlines() == [
        "reading the data",
        "tokenising",
        "runs/translate-1: 29,000 rows to train on, 1,014 rows held out; 8,000 tokens (bpe)",
        "beginning: 4,035,584 weights on cpu in fp32",
        "step 10/500, epoch 1: loss 8.1000, 8,100 tokens/s, 0:12, 10:00 left",
        "step 10: bleu 1.25, chrf 12 (best)",
        "    a dog",
        "    → \\x1b[31mein Hund\\x07",
        "step 20: bleu 2.5, chrf 14",
        "    → ein Hund",
    ]


def test_warnings_stand_on_standard_error(capsys):
    Display(Output(), "fill")(Warned("watch\x1bout"))
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "regard: watch\\x1bout\n")


@pytest.mark.parametrize("width", [24, 46, 80, 200])
def test_the_picture_fits_its_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    display = Display(Output(out=stream), "translate")
    with display:
        for event in EVENTS:
            display(event)
            console = Console(width=width, file=io.StringIO(), legacy_windows=False)
            console.print(display.picture())
            lines = console.file.getvalue().splitlines()
            assert all(len(line) <= min(width, 100) for line in lines)
    shown = console.file.getvalue()
    told = " ".join(shown.replace("│", " ").split())
    assert "evaluating ..." in told
    assert "7.1000" in told
    if width >= 80:
        assert "step 20 of 500, epoch 1" in told
        assert "0:24, 9:50 left, 8,200 tokens/s, rate 0.001" in told
        assert "best 1.25 at step 10" in told
        assert "→ ein Hund" in told
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is back


def test_the_picture_says_how_far_a_phase_is():
    display = Display(Output(out=io.StringIO()), "translate")
    for event, expected in zip(EVENTS[:2], ("reading the data: 1,200 rows ...", "25%"), strict=True):
        display(event)
        console = Console(width=100, file=io.StringIO())
        console.print(display.picture())
        assert expected in console.file.getvalue()


def test_many_measurements_and_infinite_ones_take_no_room():
    display = Display(Output(out=io.StringIO()), "fill")
    for step in range(1, 9000):
        loss = math.nan if step % 10 == 0 else 5 / step
        display(Stepped(step, None, 0, loss, loss, 1e-3, 1.0, math.nan, 1.0, None))
    assert len(display.losses) <= 2000
    assert all(map(math.isfinite, display.losses))
    console = Console(width=80, file=io.StringIO())
    console.print(display.picture())
    assert "step 8,999, epoch 1" in console.file.getvalue()


def test_an_error_gives_the_terminal_back(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with pytest.raises(ZeroDivisionError), Display(Output(out=stream), "fill"):
        raise ZeroDivisionError
    assert "\x1b[?25h" in stream.getvalue()


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Display(Output(out=stream), "fill") as display:
        display(EVENTS[0])
    assert stream.getvalue() == "reading the data\n"
