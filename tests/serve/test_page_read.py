"""The page's reading, in a browser before the real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.serve.browser import Open, Place, until
from tests.serve.test_page_write import HOSTILE, assert_harmless, model_of
from tests.tiny_data import sentences


def read_on_page(tab: Any, verb: str) -> None:
    tab.locator("button.main").click()
    tab.get_by_role("region", name="Result").wait_for()


def test_labels_and_what_they_rest_on(place: Place, opened: Open) -> None:
    text = "a dog 😀 runs\nit was too tired"
    tab = opened("#/read?verb=classify")
    tab.get_by_label("Your text").fill(text)
    read_on_page(tab, "classify")
    found = model_of(place, "classifier").classify(text)
    bars = tab.locator(".bars li").all_inner_texts()
    assert [bar.split()[0] for bar in bars] == [one.label for one in found.scores]
    assert float(bars[0].split()[1]) == pytest.approx(100 * found.score, abs=0.51)
    assert "".join(tab.locator(".on-text").inner_text().split()) == "".join(text.split())
    assert tab.locator(".part").count() > 5
    first = tab.locator(".part[data-score]").first.get_attribute("data-score")
    tab.get_by_label("Shown").select_option("occlusion")
    until(tab, "document.querySelector('.on-text').dataset.which === 'occlusion'")
    assert tab.locator(".part[data-score]").first.get_attribute("data-score") != first
    assert "The check: taking parts away" in tab.inner_text("main")


def test_entities_stand_in_the_text(place: Place, opened: Open) -> None:
    text = "😀 the animal didn't cross the street"
    tab = opened(f"#/read?verb=tag&text={text}&run=1")
    tab.get_by_role("region", name="Result").wait_for()
    found = model_of(place, "tagger").tag(text).entities
    assert found
    marked = tab.locator(".on-text mark").all_inner_texts()
    assert [one.split("\n")[0].removesuffix(entity.label).strip() for one, entity in
            zip(marked, found, strict=True)] == [entity.text for entity in found]  # fmt: skip


def test_gaps_are_filled_in_place(place: Place, opened: Open) -> None:
    tab = opened("#/read?verb=fill&text=the [MASK] was too ___ to cross&run=1")
    tab.get_by_role("region", name="Result").wait_for()
    found = model_of(place, "filler").fill("the [MASK] was too ___ to cross", top=8)
    gaps = tab.locator("button.gap")
    assert gaps.count() == 2
    gaps.nth(1).click()
    bars = tab.locator(".bars li")
    assert bars.count() == 8
    chosen = bars.nth(3).locator(".bar-label").inner_text()
    bars.nth(3).locator("button").click()
    assert gaps.nth(1).inner_text() == chosen
    shares = [float(text.rsplit("\n", 1)[-1].rstrip(" %")) for text in bars.all_inner_texts()]
    assert shares[0] == pytest.approx(100 * found.masks[1][0].probability, abs=0.51)


def test_lines_of_a_file_on_a_map_and_their_nearest(place: Place, opened: Open, tmp_path: Path) -> None:
    lines = sorted(set(sentences()))[:12]
    file = tmp_path / "lines <b>.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    tab = opened("#/read?verb=embed&model=filler")
    tab.locator("input[type=file]").set_input_files(file)
    until(tab, "document.querySelector('main').innerText.includes('is uploaded')")
    tab.get_by_label("Search for").fill("the dog sees a cat")
    read_on_page(tab, "embed")
    tab.get_by_text("All texts, with their places").click()
    assert tab.locator(".texts li").count() == len(lines)
    model = model_of(place, "filler")
    best = model.search("the dog sees a cat", lines, top=8)
    shown = tab.locator(".bars .bar-label").all_inner_texts()
    assert shown[0] == best.matches[0].text and len(shown) == 8
    tab.locator(".texts button").nth(4).click()
    until(tab, f"document.querySelector('.bars .bar-label').innerText === {json.dumps(lines[4])}")
    assert_harmless(tab)


def test_answers_and_surprise_stand_in_the_text(place: Place, opened: Open) -> None:
    text, question = "the animal was too tired to cross", "why"
    tab = opened(f"#/read?verb=answer&text={text}&question={question}&run=1")
    tab.get_by_role("region", name="Result").wait_for()
    found = model_of(place, "answerer").answer(text, question=question)
    assert tab.locator(".on-text mark").inner_text() == found.text != ""
    tab = opened("#/read?verb=score&model=writer&text=a dog runs&run=1")
    tab.get_by_role("region", name="Result").wait_for()
    score = model_of(place, "writer").score("a dog runs")
    assert f"Surprise {-score.logprob:.2f} nats" in tab.inner_text("main")
    shown = tab.locator(".on-text .token").all()
    expected = [one.logprob for one in score.token_scores]
    assert len(shown) == len(expected)
    for one, logprob in zip(shown, expected, strict=True):
        held = one.get_attribute("data-logprob")
        assert (held is None) == (logprob is None)
        assert logprob is None or float(held) == pytest.approx(logprob, abs=1e-5)


@pytest.mark.parametrize("where", ["translate", "generate", "read"])
def test_hostile_texts_are_shown_as_texts(opened: Open, where: str) -> None:
    extra = {"translate": "model=translator&run=1", "generate": "model=writer&tokens=5&run=1",
             "read": "verb=tag&run=1"}[where]  # fmt: skip
    tab = opened(f"#/{where}?{extra}&text={quote(HOSTILE)}")
    tab.locator(
        {"translate": "[data-told]", "generate": ".token", "read": ".on-text"}[where]
    ).first.wait_for()
    assert_harmless(tab)
    assert "\\u202eevil" in tab.inner_text("main")


def test_what_cannot_be_is_one_sentence_in_place(opened: Open) -> None:
    tab = opened("#/read?verb=fill&text=no gap here")
    tab.noted.expected.append("422")
    tab.locator("button.main").click()
    tab.get_by_role("alert").wait_for()
    assert "has no mask" in tab.get_by_role("alert").inner_text()
    tab.get_by_label("Your text").fill("  ")
    tab.locator("button.main").click()
    until(tab, "document.querySelector('[role=alert]').innerText.includes('Type a text first')")


def test_a_view_that_was_left_writes_into_no_other(opened: Open, tmp_path: Path) -> None:
    tab = opened("#/explore?model=writer&text=the+dog&view=matrix")
    tab.wait_for_selector(".rg-plane")
    until(tab, "location.hash.includes('layer=')")
    tab.get_by_role("link", name="Saved").click()
    tab.get_by_role("heading", name="Saved", exact=True).wait_for()
    tab.wait_for_timeout(300)  # the address is written a little later
    assert tab.evaluate("location.hash") == "#/saved"

    held: list[Any] = []
    tab.route("**/api/files?name=*", lambda route: held.append(route))
    tab.goto(f"{tab.url.split('#')[0]}#/read?verb=embed&model=filler")
    file = tmp_path / "late.txt"
    file.write_text("the dog\n")
    tab.locator("input[type=file]").set_input_files(file)
    with tab.expect_event("requestfailed", lambda asked: "/api/files?name=" in asked.url):
        tab.get_by_role("link", name="Saved").click()
    tab.get_by_role("heading", name="Saved", exact=True).wait_for()
    tab.wait_for_timeout(300)
    assert len(held) == 1 and tab.evaluate("location.hash") == "#/saved"
