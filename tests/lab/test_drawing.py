"""The figure and the page: well formed, in both themes, safe, and with every number in a table."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from tests.lab.trial import trial

from regard.lab.drawing import COLOURS, svg
from regard.lab.page import page
from regard.lab.runner import run
from regard.lab.statistics import number
from regard.look.draw.colours import DARK, LIGHT


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(trial(), out=tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def figure(result: dict[str, Any]) -> str:
    return svg(result["figure"], title="L99: A trial")


def test_the_figure_is_one_drawing_with_its_words(figure: str) -> None:
    root = ET.fromstring(figure)
    words = "".join(root.itertext())
    for text in ("Lines", "Bars", "length (tokens)", "value (units)", "two $x$", "here", "A caption & more."):
        assert text in words
    assert root.get("role") == "img"


def test_every_colour_turns_in_the_dark(figure: str) -> None:
    """What is drawn in a colour without a rule would be lost on dark ground."""
    (rules,) = re.findall(r"<style>@media\(prefers-color-scheme:dark\)\{(.*?)\}</style>", figure)
    turned = set(re.findall(r'\[style\*="((?:fill|stroke): #[0-9a-f]{6})"\]', rules))
    used = set(re.findall(r"(?:fill|stroke): #[0-9a-f]{6}", figure.partition("</style>")[2]))
    assert used <= turned and len(used) > 4


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("light", "dark"), COLOURS)
def test_lines_stand_out_on_both_grounds(light: str, dark: str) -> None:
    for colour, ground in ((light, LIGHT.ground), (dark, DARK.ground)):
        high, low = sorted((luminance(colour), luminance(ground)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5  # of WCAG for text


def test_the_page_makes_no_request_and_holds_every_number(result: dict[str, Any], figure: str) -> None:
    text = page(result, figure)
    assert "default-src 'none'" in text and "<script" not in text
    assert not re.search(r'(?:src|href)="(?!#)', text.replace('xlink:href="#', 'href="#'))
    table = text.partition("The numbers of the figure")[2]
    for panel in result["figure"]["panels"]:
        for series in panel["series"]:
            for point in series["points"]:
                assert number(point["mean"], 4) in table
    assert "a &lt;b&gt; &amp; c" in table
    for part in ("verdict", "question", "method", "refuted_by", "fair", "tuning", "command"):
        assert result[part] in text


def test_a_trial_is_called_one(tmp_path: Path) -> None:
    run(trial(), size="smoke", out=tmp_path)
    assert "numbers mean nothing" in (tmp_path / "L99/index.html").read_text()
