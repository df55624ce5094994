"""The page that is exported: offline, by itself, with the right numbers, and deaf to what a text says."""

from __future__ import annotations

import base64
import json
import math
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from regard.errors import ConfigError, DependencyError
from regard.look.capture import Captured
from regard.look.draw import html as module
from regard.look.draw.html import html, page, write_html
from regard.look.draw.payload import payload
from regard.look.reading import Look, Side, Token, Word
from regard.nn.attention import Attend

HOSTILE = [
    "<script>window.hit=1</script>", "<img src=x onerror=window.hit=1>", "</script><script>window.hit=1</script>",
    "\u202eevil\u202c", "\x1b[31mred\x1b[0m", "", "  ", "\u200b", "<!--", "&lt;b&gt;", "\ud800", "東京", "שלום",
    "']];window.hit=1;//", "{window.hit=1}", "\u2028", "x" * 300,
]  # fmt: skip


def captured(
    name: str, T: int, S: int, *, heads: int = 4, kv_heads: int = 2, causal: bool = False, softcap: float | None = None,
    biased: bool = False, dtype: torch.dtype = torch.float32, seed: int = 0,
) -> Captured:  # fmt: skip
    """Make a layer of random queries and keys, with its true normalisers."""
    made = torch.Generator().manual_seed(seed)
    query = torch.randn(heads, T, 8, generator=made).mul(2).to(dtype)
    key = torch.randn(kv_heads, S, 8, generator=made).to(dtype)
    spans = torch.tensor([[0, S]]).repeat(T, 1)
    if causal:
        spans = torch.stack([(torch.arange(T) - 5).clamp(min=0), torch.arange(1, T + 1)], 1)
    distance = torch.arange(-(T - 1), S).abs().float()
    relative = -0.1 * distance * torch.arange(1, heads + 1)[:, None] if biased else None
    checked = (torch.zeros(1, dtype=torch.long), torch.zeros(heads, 1, 8, dtype=torch.float64))
    empty = Captured(
        name,
        query,
        key,
        None,
        torch.zeros(heads, T),
        spans,
        Attend(8**-0.5, softcap, name=name),
        relative,
        checked,
    )
    normaliser = torch.stack([empty.scores(h, slice(None), slice(None)).logsumexp(-1) for h in range(heads)])
    return Captured(name, query, key, None, normaliser.float(), spans, empty.attend, relative, checked)


def side(name: str, tokens: list[str], *, joined: tuple[int, ...] = ()) -> Side:
    """Make a text of tokens with a blank between; those in `joined` belong to the word before."""
    named, words, place = [], [], 0
    for k, text in enumerate(tokens):
        special = text in ("<s>", "</s>")
        named.append(Token(text, place, place if special else place + len(text), special))
        place += 0 if special else len(text) + (k + 1 not in joined)
        if k in joined:
            words[-1] = Word(words[-1].text + text, words[-1].start, k + 1)
        else:
            words.append(Word(text, k, k + 1, special))
    return Side(name, " ".join(tokens), tuple(range(len(tokens))), tuple(named), tuple(words))


SOURCE = side("source", ["<s>", "The", "ani", "mal", "was", "too", "tired", ".", "</s>"], joined=(3,))
TARGET = side("target", ["<s>", "Il", "était", "trop", "fati", "gué", "</s>"], joined=(5,))


@pytest.fixture(scope="module")
def look() -> Look:
    layers = [
        captured("encoder.0", 9, 9, biased=True),
        captured("encoder.1", 9, 9, softcap=3.0, seed=1),
        captured("decoder.0", 7, 7, causal=True, seed=2),
        captured("cross.0", 7, 9, dtype=torch.bfloat16, seed=3),
    ]
    return Look({"source": SOURCE, "target": TARGET}, {layer.name: layer for layer in layers}, "a model")


def hostile_look() -> Look:
    text = side("text", HOSTILE)
    layer = captured("encoder.0", len(HOSTILE), len(HOSTILE))
    return Look({"text": text}, {"encoder.0": layer}, "<b>model</b>")


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Give a function which opens a look from its file, without a network, and notes what the page does."""
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})

    def open_(look: Look, state: str = "", **options: Any) -> Any:
        path = tmp_path / "look.html"
        write_html(look, path, **options)
        tab = context.new_page()
        tab.noted = SimpleNamespace(requests=[], said=[])
        tab.on("request", lambda request: tab.noted.requests.append(request.url))
        tab.on("console", lambda message: tab.noted.said.append(message.text))
        tab.on("pageerror", lambda error: tab.noted.said.append(str(error)))
        tab.goto(path.as_uri() + state)
        tab.wait_for_selector('[data-ready="true"]')
        until(tab, HAS_WEIGHT)
        return tab

    yield open_
    context.close()


HAS_WEIGHT = "document.querySelector('.rg-weight')?.dataset.weight !== undefined"


def until(tab: Any, expression: str) -> None:
    """Wait until an expression is true, asked from outside: the page itself may evaluate nothing."""
    deadline = time.monotonic() + 20
    while not tab.evaluate(expression):
        assert time.monotonic() < deadline, expression
        tab.wait_for_timeout(15)


def weight_shown(tab: Any) -> float:
    return float(tab.get_attribute(".rg-weight", "data-weight"))


def words_of(look: Look, layer: str, head: int) -> np.ndarray:
    """Compute the matrix of words as the instrument itself does."""
    return look.weights(layer, head, words=True).values.numpy()


@pytest.mark.parametrize("layer", ["encoder.0", "encoder.1", "decoder.0", "cross.0"])
def test_every_weight_in_the_browser_is_the_instruments(look: Look, opened: Any, layer: str) -> None:
    tab = opened(look, f"#view=matrix&layer={layer}&head=3&units=words&row=0&column=0")
    expected = words_of(look, layer, 3)
    shown = tab.evaluate(WALK, list(expected.shape))
    assert np.array(shown) == pytest.approx(expected, abs=2e-6)
    assert not tab.noted.said


# Walk over a matrix with the arrow keys and write down the weight of each cell.
WALK = """async ([rows, columns]) => {
  const plane = document.querySelector('.rg-plane'), found = [];
  const press = async key => {
    plane.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
    await new Promise(next => setTimeout(next));
  };
  for (let row = 0; row < rows; row++) {
    await press('Home');
    found.push([]);
    for (let column = 0; column < columns; column++) {
      found[row].push(Number(document.querySelector('.rg-weight').dataset.weight));
      await press('ArrowRight');
    }
    await press('ArrowDown');
  }
  return found;
}"""


def test_pointing_at_a_cell_shows_its_weight(look: Look, opened: Any) -> None:
    tab = opened(look, "#view=matrix&layer=encoder.1&head=2&units=subwords")
    box = tab.locator(".rg-above").bounding_box()
    expected = look.weights("encoder.1", 2).values
    seen = set()
    for x in (0.45, 0.55, 0.6):
        for y in (0.4, 0.6, 0.7):
            tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            tab.wait_for_timeout(30)
            row, column = (
                int(tab.get_attribute(".rg-readout", f"data-{axis}")) for axis in ("row", "column")
            )
            assert weight_shown(tab) == pytest.approx(float(expected[row, column]), abs=2e-6)
            assert tab.inner_text(".rg-from") == SOURCE.tokens[row].text
            seen.add((row, column))
    assert len(seen) == 9


def test_pointing_at_a_word_shows_what_it_looks_at(look: Look, opened: Any) -> None:
    tab = opened(look, "#view=sentence&layer=encoder.0&head=0&units=words")
    box = tab.locator(".rg-sheet").bounding_box()
    expected = words_of(look, "encoder.0", 0)
    seen = {}
    for step in range(60):
        tab.mouse.move(box["x"] + box["width"] * step / 60, box["y"] + box["height"] * 0.78)
        tab.wait_for_timeout(5)
        row = int(tab.get_attribute(".rg-readout", "data-row"))
        seen[tab.inner_text(".rg-from")] = (row, tab.inner_text(".rg-best li >> nth=0").split())
    assert "animal" in seen, seen
    for row, (word, *_, weight) in seen.values():
        best = expected[row].argmax()
        assert (word, float(weight)) == (
            SOURCE.words[best].text,
            pytest.approx(expected[row].max(), abs=6e-4),
        )


def test_nothing_is_requested_but_the_file(look: Look, opened: Any) -> None:
    tab = opened(look)
    for view in ("sentence", "lines", "heads", "overview", "numbers", "matrix"):
        tab.click(f"#rg-tab-{view}")
        tab.wait_for_timeout(60)
    others = [url for url in tab.noted.requests[1:] if not url.startswith("blob:")]
    assert tab.noted.requests[0].startswith("file:") and not others
    assert not tab.noted.said
    refused = tab.evaluate("fetch('https://example.org').then(() => 'went', error => 'refused')")
    assert refused == "refused"


def test_a_hostile_text_is_shown_as_text(opened: Any) -> None:
    tab = opened(hostile_look(), "#units=subwords&row=3&column=4")
    for view in ("matrix", "sentence", "lines", "heads", "overview", "numbers"):
        tab.click(f"#rg-tab-{view}")
        tab.wait_for_timeout(60)
        assert tab.evaluate("window.hit") is None
        assert tab.evaluate("document.querySelectorAll('img, script[src], iframe, b > *').length") == 0
    assert tab.inner_text(".rg-from") == "\\u202eevil\\u202c"
    assert tab.inner_text(".rg-to") == "\\x1b[31mred\\x1b[0m"
    assert tab.inner_text(".rg-model") == "<b>model</b>"
    assert "\u202e" not in tab.evaluate("document.body.innerText")
    assert not tab.noted.said


def test_keys_move_and_the_address_remembers(look: Look, opened: Any) -> None:
    tab = opened(look, "#view=matrix&layer=cross.0&head=1&row=2&column=3&units=subwords&scale=log")
    tab.focus(".rg-plane")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("]")
    until(tab, "location.hash.includes('head=2')")
    state = tab.evaluate("location.hash")
    for part in ("layer=cross.0", "head=2", "row=3", "column=4", "units=subwords", "scale=log"):
        assert part in state
    again = opened(look, state)
    assert again.inner_text(".rg-from") == TARGET.tokens[3].text
    assert again.inner_text(".rg-to") == SOURCE.tokens[4].text
    assert weight_shown(again) == pytest.approx(float(look.weights("cross.0", 2).values[3, 4]), abs=2e-6)


@pytest.mark.parametrize(
    "state", ["#layer=../etc&head=99&row=-1&column=1e9", "#view=constructor&head=NaN", "#%E0%A4%A"]
)
def test_a_false_address_is_no_harm(look: Look, opened: Any, state: str) -> None:
    tab = opened(look, state)
    assert not tab.noted.said


def test_what_is_hidden_is_said(look: Look, opened: Any) -> None:
    tab = opened(look, "#view=matrix&layer=encoder.1&head=0&units=words&hide=special&renormalise=1&row=2")
    row = look.row("encoder.1", 0, "animal", words=True, hide=["special"], renormalise=True)
    shown = tab.locator(".rg-best li").all_inner_texts()
    for text, (word, value) in zip(shown, row.top(3), strict=False):
        assert text.split()[0] == word.text
        assert float(text.split()[-1]) == pytest.approx(value, abs=6e-4)
    caption = tab.inner_text(".rg-caption")
    assert "special tokens hidden" in caption and "sum to one" in caption


def test_a_reader_of_the_screen_gets_the_row(look: Look, opened: Any) -> None:
    tab = opened(look, "#view=matrix&layer=encoder.1&head=0&units=subwords&row=4")
    cells = [text.split("\t") for text in tab.locator(".rg-table tbody tr").all_inner_texts()]
    expected = look.weights("encoder.1", 0).values[4]
    assert [int(cells[k][1]) for k in range(9)] == expected.argsort(descending=True).tolist()


def test_a_weight_is_taken_apart(look: Look, opened: Any) -> None:
    tab = opened(look, "#view=numbers&layer=encoder.0&head=1&row=2&column=5&units=subwords")
    tab.wait_for_selector(".rg-steps li:last-child b")
    layer = look.layers["encoder.0"]
    product = float(layer.query[1, 2] @ layer.key[0, 5])
    steps = [float(text) for text in tab.locator(".rg-steps b").all_inner_texts()]
    score = product * layer.scale
    biased = score - 0.1 * 3 * 2
    expected = [product, score, biased, biased - float(layer.normaliser[1, 2])]
    assert steps == pytest.approx([*expected, math.exp(expected[-1])], abs=6e-4)


def test_a_long_text_becomes_a_map(opened: Any) -> None:
    n = 2600
    text = side("text", [f"w{k}" for k in range(n)])
    layer = captured("decoder.0", n, n, heads=1, kv_heads=1, causal=True)
    tab = opened(Look({"text": text}, {"decoder.0": layer}), "#view=matrix&row=2000&column=1998")
    assert tab.inner_text("#rg-tab-matrix") == "Map"
    until(tab, HAS_WEIGHT)
    assert weight_shown(tab) == pytest.approx(float(layer.weights(0, [2000], [1998])[0, 0]), abs=2e-6)
    tab.fill(".rg-find input", "w1234")
    until(tab, "document.querySelector('.rg-note').dataset.exact === 'true'")
    until(tab, "document.querySelector('.rg-readout').dataset.column === '1234'")
    until(tab, HAS_WEIGHT)
    assert weight_shown(tab) == pytest.approx(float(layer.weights(0, [1234], [1234])[0, 0]), abs=2e-6)
    assert not tab.noted.said


def decoded(packed: dict[str, Any], dtype: str) -> np.ndarray:
    raw = base64.b64decode(packed["data"])
    return np.frombuffer(zlib.decompress(raw) if packed.get("deflated") else raw, dtype)


def test_a_pyramid_holds_means_and_maxima_of_every_cell() -> None:
    n = 2600
    layer = captured("decoder.0", n, n, heads=1, kv_heads=1, causal=True)
    look = Look({"text": side("text", ["w"] * n)}, {"decoder.0": layer})
    (packed,) = payload(look)["layers"]
    pyramid = packed["pyramids"]["0"]
    weights = torch.nn.functional.pad(layer.weights(0, slice(None), slice(None)), (0, n % 2, 0, n % 2))
    cells = weights.view(n // 2, 2, n // 2, 2)
    for kind, expected in (("mean", cells.mean((1, 3))), ("max", cells.amax((1, 3)))):
        low, high = pyramid[kind]["range"]
        codes = decoded(pyramid[kind], "u1").astype(np.float64)
        values = np.where(codes > 0, np.exp(low + (codes - 1) / 254 * (high - low)), 0).reshape(
            n // 2, n // 2
        )
        truth = expected.numpy().astype(np.float64)
        some = truth > 1e-12
        assert np.abs(np.log(values[some] / truth[some])).max() <= (high - low) / 254 / 2 + 1e-5
        assert not values[~some].any()


def test_the_smaller_of_weights_and_keys_is_packed(monkeypatch: pytest.MonkeyPatch, look: Look) -> None:
    kept = payload(look)["layers"]
    assert all("query" in layer and "weights" not in layer for layer in kept)
    assert decoded(kept[3]["query"], "u2").size == 4 * 7 * 8  # bf16 stays bf16
    monkeypatch.setattr("regard.look.draw.payload._AS_CAPTURED", 0)
    packed = payload(look, layers=["encoder.0"], heads=[1, 3])["layers"][0]
    weights = decoded(packed["weights"], "f2").reshape(2, 9, 9)
    truth = look.weights("encoder.0", 3).values.numpy()
    assert np.abs(weights[1] - truth).max() <= packed["error"] * 1.06
    assert packed["heads"] == [1, 3]


def test_unknown_layers_and_heads_are_refused(look: Look) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'encoder\.1'"):
        html(look, layers=["encoder1"])
    with pytest.raises(ConfigError, match="heads 0 to 3"):
        html(look, heads=[4])


def test_a_page_without_its_component_says_how_to_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, look: Look
) -> None:
    monkeypatch.setattr(module, "ASSET", tmp_path / "missing.js")
    with pytest.raises(DependencyError, match="make web"):
        write_html(look, tmp_path / "look.html")
    assert not list(tmp_path.iterdir())


def test_data_can_not_end_its_element(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "look.js"
    script.write_text('let a = "</script><!--<script>";', encoding="utf-8")
    monkeypatch.setattr(module, "ASSET", script)
    text = page(payload(hostile_look(), title="</title><script>"))
    assert len(re.findall(r"<script", text)) == 2 and len(re.findall(r"</script", text)) == 2
    assert "<!--" not in text and "&lt;/title&gt;" in text
    body = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.S)
    assert body and json.loads(body[1])["sides"]["text"]["tokens"] == HOSTILE
