"""The page's looks in a browser: typed, pointed at, switched off, compared, of long texts, and linked to."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import numpy as np
import pytest
from tests.serve.browser import Open, Place, Server, holds, live_run, trained, until
from tests.tasks.small import make_parts, save

import regard

WEB = Path(__file__).parents[2] / "web"
TEXT = "the animal was too tired"
WIDE = "the animal was too wide"
FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(done))))"
HAS_WEIGHT = "document.querySelector('.rg-weight')?.dataset.weight !== undefined"
READY = '[data-ready="true"]'
HOSTILE = "<img src=x onerror=window.hit=1> a dog \u202eevil"


def weights(place: Place, name: str, text: str, layer: str, head: int, **settings: Any) -> np.ndarray:
    """Compute a matrix as the library does."""
    look = regard.load(place.runs / name).look(text)
    return look.weights(layer, head, **settings).values.numpy()


def shown(tab: Any, within: str = "") -> tuple[int, int, float]:
    """Give the row, the column and the weight that a picture shows."""
    readout = tab.locator(f"{within} .rg-readout")
    weight = tab.locator(f"{within} .rg-weight").get_attribute("data-weight")
    return int(readout.get_attribute("data-row")), int(readout.get_attribute("data-column")), float(weight)


def explored(opened: Open, rest: str, model: str = "writer", **options: Any) -> Any:
    """Open a look at the usual text, and wait until it is drawn."""
    tab = opened(f"#/explore?model={model}&text={TEXT}&{rest}", **options)
    tab.wait_for_selector(READY)
    until(tab, HAS_WEIGHT)
    return tab


def place_of(tab: Any) -> dict[str, str]:
    """Read what the address says."""
    return {name: values[0] for name, values in parse_qs(urlsplit(tab.url).fragment.split("?")[1]).items()}


def point(tab: Any, x: float, y: float, within: str = "") -> None:
    """Point at a part of the matrix, given as shares of its picture, and wait until that is drawn."""
    above = tab.locator(f"{within} .rg-above")
    above.scroll_into_view_if_needed()
    box = above.bounding_box()
    tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3)
    tab.evaluate(FRAMES)


def test_what_is_typed_becomes_a_matrix(place: Place, opened: Open) -> None:
    tab = opened("#/explore?model=writer&view=matrix&layer=decoder.1&head=1&units=subwords")
    tab.wait_for_selector(READY)
    before = [url for url in tab.noted.requests if url.endswith("/api/look")]
    tab.get_by_label("Text", exact=True).fill("")
    tab.get_by_label("Text", exact=True).type(TEXT, delay=15)
    until(tab, f"document.querySelector('.menu a[href*=\"format=json\"]') && {HAS_WEIGHT}")
    expected = weights(place, "writer", TEXT, "decoder.1", 1)
    until(tab, f"document.querySelector('.status').innerText.includes('{len(expected)} tokens')")
    asked = [url for url in tab.noted.requests if url.endswith("/api/look")]
    assert len(asked) - len(before) <= 2, "typing waits for a pause"
    tab.wait_for_selector(READY)
    tab.locator(".rg-plane").focus()
    tab.keyboard.press("End")
    until(tab, HAS_WEIGHT)
    row, column, weight = shown(tab)
    assert column == len(expected) - 1
    assert weight == pytest.approx(float(expected[row, column]), abs=2e-6)
    assert place_of(tab)["text"] == TEXT


def test_pointing_shows_the_weight_and_keys_pick_a_head(place: Place, opened: Open) -> None:
    tab = explored(opened, "view=matrix&layer=decoder.0&head=0&units=subwords")
    seen = set()
    for x, y in ((0.45, 0.7), (0.5, 0.8), (0.4, 0.9)):
        point(tab, x, y)
        row, column, weight = shown(tab)
        expected = weights(place, "writer", TEXT, "decoder.0", 0)
        assert weight == pytest.approx(float(expected[row, column]), abs=2e-6)
        seen.add((row, column))
    assert len(seen) == 3
    tab.locator(".rg-plane").focus()
    tab.keyboard.press("]")
    until(tab, "location.hash.includes('head=1')")
    until(tab, HAS_WEIGHT)
    row, column, weight = shown(tab)
    assert weight == pytest.approx(
        float(weights(place, "writer", TEXT, "decoder.0", 1)[row, column]), abs=2e-6
    )


def test_roles_beside_the_overview_lead_to_a_head(server: Server, opened: Open) -> None:
    tab = explored(opened, "view=overview", model="translator")
    tab.wait_for_selector(".roles:not([aria-busy=true])")
    buttons = tab.locator(".roles .go")
    if not buttons.count():  # a model of so few steps may have no head that stands out: that is said
        assert "no head stands out" in tab.locator(".roles").inner_text()
        return
    layer, head = buttons.first.locator("span").inner_text().split(", head ")
    buttons.first.click()
    until(tab, "location.hash.includes('view=matrix')")
    found = place_of(tab)
    assert (found["layer"], found["head"]) == (layer, head)
    tab.go_back()
    until(tab, "document.querySelector('#rg-tab-overview').ariaSelected === 'true'")


def test_a_head_is_switched_off_beside_the_map(server: Server, opened: Open) -> None:
    tab = explored(opened, "view=matrix&layer=cross.1&head=1", model="translator")
    tab.get_by_role("button", name="Switch it off").click()
    tab.wait_for_selector(".found")
    asked = {"model": "translator", "text": TEXT, "heads": ["cross.1.1"], "how": "zero", "max_tokens": 64}
    told = httpx2.post(f"{server.address}/api/effect", json=asked, timeout=60).json()
    said = tab.locator(".found").inner_text()
    assert f"{told['loss_before']:.3f} → {told['loss_after']:.3f}" in said
    for text in told["texts"][0]:
        assert " ".join(text.split()) in " ".join(said.split())
    assert place_of(tab)["off"] == "cross.1.1"
    tab.keyboard.press("]")
    until(tab, "!document.querySelector('.found')")  # which was of the other head


def test_a_link_brings_everything_back(place: Place, opened: Open) -> None:
    tab = explored(
        opened, "view=matrix&layer=decoder.1&head=0&units=subwords&row=3&column=1&scale=log&off=decoder.1.0"
    )
    tab.wait_for_selector(".found")
    tab.locator(".rg-plane").focus()
    tab.keyboard.press("ArrowDown")
    until(tab, "location.hash.includes('row=4')")
    again = opened(tab.url.split("/")[-2] + "/" + tab.url.split("/")[-1])
    again.wait_for_selector(READY)
    again.wait_for_selector(".found")
    until(again, HAS_WEIGHT)
    assert place_of(again) == place_of(tab)
    expected = weights(place, "writer", TEXT, "decoder.1", 0)
    assert shown(again) == (4, 1, pytest.approx(float(expected[4, 1]), abs=2e-6))
    assert again.get_by_label("Text", exact=True).input_value() == TEXT
    again.evaluate("location.hash = '#/explore?model=talker&text=a dog'")
    until(again, "document.querySelector('textarea').value === 'a dog'")
    until(again, "location.hash.includes('layer=')")


def test_files_hold_what_is_shown(place: Place, opened: Open) -> None:
    tab = explored(opened, "view=matrix&layer=decoder.1&head=1")
    expected = weights(place, "writer", TEXT, "decoder.1", 1)
    saved: dict[str, bytes] = {}
    for name in ("PNG", "SVG", "HTML", "JSON", "CSV"):
        tab.locator("summary").filter(has_text="Export").click()
        with tab.expect_download() as download:
            tab.locator(".menu a").filter(has_text=name).click()
        saved[name] = Path(download.value.path()).read_bytes()
    assert saved["PNG"].startswith(b"\x89PNG") and b"<svg" in saved["SVG"][:500]
    assert b"regard-look-data" in saved["HTML"]
    assert np.array(json.loads(saved["JSON"])["weights"]) == pytest.approx(expected, abs=1e-6)
    rows = list(csv.DictReader(io.StringIO(saved["CSV"].decode())))
    for row in rows:
        assert float(row["weight"]) == pytest.approx(
            float(expected[int(row["row"]), int(row["column"])]), abs=1e-6
        )
    assert len(rows) == len(expected) * (len(expected) + 1) // 2
    for view in ("sentence", "lines", "heads", "overview", "numbers"):
        tab.click(f"#rg-tab-{view}")
        until(tab, f"location.hash.includes('view={view}')")
        tab.locator("summary").filter(has_text="Export").click()
        with tab.expect_download() as download:
            tab.locator(".menu a").filter(has_text="SVG").click()
        assert b"<svg" in Path(download.value.path()).read_bytes()[:500], view


def test_two_cursors_move_as_one(place: Place, opened: Open) -> None:
    tab = opened(
        f"#/compare?model=writer&text={TEXT}&text2=well {WIDE}&view=matrix&layer=decoder.0&head=1&units=words"
    )
    for side in "ab":
        tab.wait_for_selector(f"[data-side={side}] {READY}")
    until(tab, "document.querySelectorAll('.rg-weight[data-weight]').length === 2")
    labels = {side: tab.locator(f"[data-side={side}] .rg-readout .rg-from") for side in "ab"}
    seen = set()
    for y in (0.5, 0.6, 0.7, 0.8):
        point(tab, 0.4, y, "[data-side=a]")
        left, right = labels["a"].inner_text(), labels["b"].inner_text()
        assert left == right or (left, right) == ("tired", "wide")
        assert shown(tab, "[data-side=b]")[0] == shown(tab, "[data-side=a]")[0] + 1, "one word stands before"
        seen.add(left)
    assert len(seen) >= 3
    point(tab, 0.5, 0.9, "[data-side=b]")
    assert shown(tab, "[data-side=a]")[0] == shown(tab, "[data-side=b]")[0] - 1
    expected = weights(place, "writer", TEXT, "decoder.0", 1, words=True)
    row, column, weight = shown(tab, "[data-side=a]")
    assert weight == pytest.approx(float(expected[row, column]), abs=2e-6)
    tab.locator("[data-side=b]").get_by_label("Next head").click()
    until(
        tab, "document.querySelectorAll('select[aria-label=Head]')[0].value === '0'"
    )  # the same head on both sides
    tab.get_by_label("Linked cursors").uncheck()
    still = labels["b"].inner_text()
    point(tab, 0.5, 0.45, "[data-side=a]")
    assert labels["b"].inner_text() == still


@pytest.fixture(scope="module")
def long_text() -> str:
    """Give a text of more tokens than are sent to the page at once: a token is a character."""
    return "the animal was too tired, it sleeps; a dog runs.\n" * 55


@pytest.fixture
def long_server(own_server: Server, long_text: str) -> Server:
    """Give a server with a decoder that reads long texts, and such a text among the files that were sent."""
    save(make_parts("decoder", position="rotary", context=4096), own_server.place.runs / "long")
    put = httpx2.put(
        f"{own_server.address}/api/files", params={"name": "long.txt"}, content=long_text.encode()
    )
    assert put.status_code == 200
    return own_server


def test_a_long_file_is_a_map_down_to_one_weight(
    long_server: Server, long_text: str, opened: Open, tmp_path: Path
) -> None:
    tab = opened("#/long?model=long", at=long_server)
    tab.wait_for_selector("option[value='long.txt']", state="attached")
    (tmp_path / "dropped.txt").write_text(long_text + "a dog.")
    tab.locator("input[type=file]").set_input_files(tmp_path / "dropped.txt")
    until(tab, "location.hash.includes('file=dropped.txt')")
    tab.wait_for_selector(".rg-plane")
    assert tab.inner_text("#rg-tab-matrix") == "Map"
    look = regard.load(long_server.place.runs / "long").look(long_text + "a dog.")
    layer = look.layers["decoder.0"]
    assert layer.shape[0] > 2600
    until(tab, HAS_WEIGHT)
    row, column, weight = shown(tab)
    assert weight == pytest.approx(float(layer.weights(0, [row], [column])[0, 0]), abs=2e-6)
    until(tab, "document.querySelector('.rg-note').dataset.exact === 'true'", 60)
    assert "×" in tab.inner_text(".rg-note")  # cells of many weights
    for _ in range(12):
        tab.get_by_role("button", name="Zoom in").click()
    until(tab, "document.querySelector('.rg-note').innerText === 'single weights'")
    for x in (0.55, 0.6):
        point(tab, x, 0.6)
        until(tab, HAS_WEIGHT)
        row, column, weight = shown(tab)
        assert weight == pytest.approx(float(layer.weights(0, [row], [column])[0, 0]), abs=2e-6)
    assert not [url for url in tab.noted.requests if "/looks/payload" in url]


def test_a_word_is_searched_and_who_looks_at_it_is_shown(
    long_server: Server, long_text: str, opened: Open
) -> None:
    tab = opened("#/long?model=long&file=long.txt", at=long_server)
    tab.wait_for_selector(".rg-plane")
    tab.get_by_label("Who looks at a word?").fill("Sleeps")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".links button")
    tab.get_by_role("button", name="The next one").click()
    until(tab, "document.querySelector('.steps').innerText.includes('2 of 55')")
    until(tab, "location.hash.includes('nth=1')")
    look = regard.load(long_server.place.runs / "long").look(long_text)
    (best, *_) = look.to("sleeps#2", top=1)
    until(tab, f"document.querySelector('.links b')?.innerText === '{best.value:.3f}'")
    tab.locator(".links button").first.click()
    until(tab, f"location.hash.includes('row={best.word.start}&')")
    found = place_of(tab)
    assert (found["layer"], int(found["head"])) == (best.layer, best.head)
    until(tab, f"document.querySelector('.rg-readout').dataset.row === '{best.word.start}'")
    until(
        tab, "document.querySelector('.rg-note').innerText === 'single weights'"
    )  # so near that it can be read


def test_a_server_that_begins_anew_is_looked_at_anew(long_server: Server, opened: Open) -> None:
    tab = opened("#/long?model=long&file=long.txt&row=30&column=20&units=subwords", at=long_server)
    tab.wait_for_selector(".rg-plane")
    until(tab, HAS_WEIGHT)
    before = shown(tab)
    tab.noted.expected += ["404", "ERR_CONNECTION_REFUSED", "Failed to load", "net::"]
    long_server.kill()
    long_server.start()
    tab.locator(".rg-plane").focus()
    tab.keyboard.press("ArrowDown")
    until(tab, "document.querySelector('.rg-readout').dataset.row === '31'")
    until(tab, HAS_WEIGHT, 40)
    assert len([url for url in tab.noted.requests if url.endswith("/api/look")]) == 2
    tab.locator(".rg-plane").focus()  # the picture is another one now
    tab.keyboard.press("ArrowUp")
    until(tab, "document.querySelector('.rg-readout').dataset.row === '30'")
    until(tab, HAS_WEIGHT)
    assert shown(tab) == before
    assert not tab.locator(".problem").count()


def test_what_was_looked_at_is_remembered_and_kept(server: Server, opened: Open) -> None:
    tab = explored(opened, "view=sentence&layer=decoder.1&head=1")
    tab.get_by_role("button", name="Keep this view").click()
    until(tab, "document.querySelector('.said').innerText.includes('Saved')")
    kept = httpx2.get(f"{server.address}/api/views").json()["items"][0]
    assert kept["title"] == TEXT and f"#{kept['place']}" == f"#{urlsplit(tab.url).fragment}"

    def is_remembered() -> bool:
        items = httpx2.get(f"{server.address}/api/history").json()["items"]
        return any(one["title"] == TEXT and one["place"].startswith("/explore?") for one in items)

    holds(True, is_remembered)


def test_a_hostile_text_is_shown_as_text(opened: Open) -> None:
    tab = opened("#/explore?model=writer&view=matrix")
    tab.wait_for_selector(READY)
    tab.get_by_label("Text", exact=True).fill(HOSTILE)
    until(tab, "location.hash.includes('onerror')")
    tab.wait_for_timeout(800)
    tab.wait_for_selector(READY)
    for view in ("sentence", "lines", "heads", "overview", "numbers", "matrix"):
        tab.click(f"#rg-tab-{view}")
        tab.wait_for_timeout(50)
    tab.get_by_role("button", name="Switch it off").click()
    tab.wait_for_selector(".found")
    assert tab.evaluate("window.hit") is None
    assert tab.evaluate("document.querySelectorAll('main img').length") == 0
    assert "\u202e" not in tab.evaluate("document.querySelector('main').innerText")


def test_a_text_that_is_too_long_is_said_in_a_sentence(opened: Open) -> None:
    tab = opened(f"#/explore?model=writer&text={'a dog runs ' * 150}")
    until(tab, "document.querySelector('.problem')?.innerText.includes('context')")


def test_without_a_model_the_run_that_goes_on_is_watched(
    place: Place, own_server: Server, opened: Open
) -> None:
    runs = own_server.place.runs
    with live_run(place, runs, "live") as tell:
        for file in (runs / "live").glob("*.safetensors"):
            file.unlink()
        shutil.rmtree(runs / "live" / "checkpoints", ignore_errors=True)
        tab = opened("", at=own_server)
        tab.wait_for_selector(".welcome")
        tell(trained(5, loss=4.25))
        until(tab, "document.querySelector('.busy').innerText.includes('Step 5 of 1,000,000 · loss 4.250')")
        tell(trained(9, loss=3.5))
        until(tab, "document.querySelector('.busy').innerText.includes('Step 9 of')")


def test_language_and_theme_are_chosen_and_kept(server: Server, opened: Open) -> None:
    tab = explored(opened, "view=matrix")
    tab.get_by_label("Language").select_option("de")
    until(tab, "document.querySelector('#rg-tab-sentence')?.innerText === 'Satz'")
    tab.get_by_label("Farben", exact=True).select_option("dark")
    until(tab, "document.querySelector('.rg-look').dataset.theme === 'dark'")
    holds({"language": "de", "theme": "dark"}, lambda: httpx2.get(f"{server.address}/api/settings").json())
    again = explored(opened, "view=matrix")
    until(
        again, "document.documentElement.lang === 'de' && document.documentElement.dataset.theme === 'dark'"
    )
    httpx2.put(f"{server.address}/api/settings", json={"language": None, "theme": None})


def test_it_begins_small(server: Server, opened: Open) -> None:
    tab = explored(opened, "view=matrix")
    sizes = tab.evaluate(
        "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))"
        ".filter(one => !one.name.includes('/api/')).map(one => one.encodedBodySize)"
    )
    assert 0 < sum(sizes) < 300_000


def test_the_keyboard_reaches_what_is_there(opened: Open) -> None:
    tab = explored(opened, "view=matrix")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.tagName") == "SELECT"
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
