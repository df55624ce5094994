"""The page's runs and what it remembers, in a browser before the real server: as a person would use them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.serve.browser import Open, Place, Server, evaluated, holds, live_run, shoot, trained, until
from tests.tiny_data import WORDS, sentences

from regard.tasks.looking_checkpoints import looks as looks_of_run

pytestmark = pytest.mark.timeout(300)
HOSTILE = "<img src=x onerror=alert(1)> \u202eevil\x1b[31m"
STATE = "document.querySelector('article')?.dataset.state"
STEP = "Number(document.querySelector('article')?.dataset.step)"


def journal(run: Path, kind: str) -> list[dict[str, Any]]:
    """Give a run's measurements of one kind."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def chart(tab: Any, title: str) -> Any:
    """Find a chart by its title."""
    return tab.locator("figure.chart").filter(has=tab.get_by_role("heading", name=title, exact=True))


def table(tab: Any, title: str) -> list[list[str]]:
    """Open a chart's table and give its cells."""
    found = chart(tab, title)
    if not found.locator("table").count():
        found.locator("summary").click()
        found.locator("tbody tr").first.wait_for()
    rows = found.locator("tbody tr").all()
    return [[cell.strip() for cell in row.locator("th, td").all_inner_texts()] for row in rows]


def numbers(cells: list[list[str]]) -> list[list[float]]:
    return [[float(cell.replace(",", "")) for cell in row] for row in cells]


def refusal(tab: Any) -> Any:
    """Find what the form of a new training says is wrong."""
    return tab.get_by_role("region", name="New training").get_by_role("alert")


def test_curves_show_what_was_measured(place: Place, opened: Open) -> None:
    tab = opened("#/runs?run=translator")
    chart(tab, "Loss").locator("path.line").wait_for()
    losses = journal(place.runs / "translator", "train")
    assert len(losses) == 24
    expected = [[line["step"], pytest.approx(line["nll"], abs=6e-4)] for line in losses]
    assert numbers(table(tab, "Loss")) == expected
    rates = [[line["step"], pytest.approx(line["lr"], abs=6e-6)] for line in losses]
    assert numbers(table(tab, "Learning rate")) == rates
    tab.get_by_label("Measure").select_option("chrf")
    measured = [
        [line["step"], pytest.approx(line["chrf"], abs=6e-4)]
        for line in journal(place.runs / "translator", "valid")
    ]
    assert numbers(table(tab, "chrF")) == measured
    assert "nats per token" in chart(tab, "Loss").inner_text()
    assert "from 6." in chart(tab, "Loss").get_by_role("img").get_attribute("aria-label")
    box = chart(tab, "Loss").locator("svg").bounding_box()
    tab.mouse.move(box["x"] + box["width"] - 15, box["y"] + 40)
    assert "at 24" in chart(tab, "Loss").locator(".readout").inner_text()
    shoot(tab, "runs")


def test_samples_are_those_of_the_evaluations(place: Place, opened: Open) -> None:
    tab = opened("#/runs?run=translator")
    samples = [line["sample"] for line in journal(place.runs / "translator", "valid")]
    slider = tab.get_by_role("slider", name="Evaluation")
    slider.wait_for()
    first = tab.locator(".sample").inner_text()
    assert first.split() == samples[-1].split()
    slider.focus()
    tab.keyboard.press("Home")
    until(tab, "document.querySelector('.sample').previousElementSibling.innerText.includes('step 4')")
    assert tab.locator(".sample").inner_text().split() == samples[0].split()


def test_runs_are_compared_and_a_link_restores_it(opened: Open) -> None:
    tab = opened("#/runs?run=translator")
    tab.get_by_label("Compare other").check()
    until(tab, "location.hash.includes('with=other')")
    tab.get_by_label("Over").select_option("time")
    until(tab, "location.hash.includes('x=time')")
    tab.locator("figure.chart path.line.c1").first.wait_for()
    again = opened(tab.evaluate("location.hash"))
    again.locator("figure.chart path.line.c1").first.wait_for()
    legend = chart(again, "Loss").locator(".readout").inner_text()
    assert "translator, training" in legend and "other, training" in legend
    assert "minutes" in chart(again, "Loss").locator(".across").inner_text()
    shoot(again, "runs-compared")


def test_a_head_is_seen_forming(place: Place, opened: Open) -> None:
    tab = opened("#/runs?run=translator&text=the+dog+sees+a+cat&target=le+chien+voit&layer=cross.1&head=1")
    tab.get_by_role("button", name="Look through").click()
    thumbs = tab.locator(".overview button")
    until(tab, "document.querySelectorAll('.overview button').length === 6", 60)
    assert thumbs.nth(0).inner_text() == "step 4" and thumbs.nth(5).inner_text() == "step 24"
    folder = place.runs / "translator"
    expected = {
        one.step: one.look.weights("cross.1", 1).values
        for one in looks_of_run(folder, "the dog sees a cat", "le chien voit")
    }
    seen = {}
    tab.locator(".matrix ~ details summary").click()
    tab.locator(".matrix ~ details tbody tr").first.wait_for()  # it fills once it has told that it is open
    for name, step in (("Home", 4), ("End", 24)):
        tab.get_by_role("slider", name="Checkpoint").focus()
        tab.keyboard.press(name)
        until(tab, f"document.querySelector('.matrix').ariaLabel.includes('step {step}:')")
        cells = tab.locator(".matrix ~ details tbody tr").all()
        shown = [float(row.locator("td").last.inner_text()) for row in cells]
        seen[step] = shown
        assert shown == pytest.approx([float(value) for value in expected[step].amax(1)], abs=6e-4)
    assert seen[4] != seen[24]
    thumbs.nth(2).click()
    until(tab, "location.hash.includes('checkpoint=12')")
    shoot(tab, "runs-forming")


def test_a_text_of_many_tokens_is_seen_forming_in_cells(place: Place, opened: Open) -> None:
    text = (
        "the+dog+sees+a+cat+" * 50
    )  # 250 tokens or more: cells of three would do, and the server has two, four, …
    tab = opened(f"#/runs?run=translator&text={text}&target=le+chien+voit&layer=encoder.1&head=1")
    with tab.expect_response(lambda answer: "/api/looks/window" in answer.url) as answered:
        tab.get_by_role("button", name="Look through").click()
    assert answered.value.status == 200 and "cell=4&" in answered.value.url + "&"
    until(tab, "document.querySelectorAll('.overview button').length === 6", 60)
    assert tab.get_by_role("alert").count() == 0


def test_a_heads_weights_stand_under_its_own_name_alone(opened: Open) -> None:
    tab = opened("#/runs?run=translator&text=the+dog&target=le+chien&layer=cross.1&head=1")
    tab.get_by_role("button", name="Look through").click()
    until(tab, "document.querySelectorAll('.overview button').length === 6", 60)
    refused = []

    def busy(route: Any) -> None:
        if len(refused) == 2:
            return route.continue_()
        refused.append(route.request.url)
        return route.fulfill(status=503, json={"error": "the server is busy"})

    tab.noted.expected += ["503", "ERR_FAILED"]
    tab.route("**/api/looks/window*head=0*", busy)
    tab.get_by_role("combobox", name="Head").select_option("0")
    until(tab, "document.querySelector('.matrix').ariaLabel.includes('head 0,')")
    until(tab, "document.querySelectorAll('.overview button').length === 6")
    assert len(refused) == 2 and tab.get_by_role("alert").count() == 0
    tab.route("**/api/looks/window*head=1*", lambda route: route.abort())
    tab.get_by_role("combobox", name="Head").select_option("1")
    tab.get_by_role("alert").wait_for()
    assert "The server does not answer" in tab.get_by_role("alert").inner_text()
    assert tab.locator(".matrix").count() == 0 and tab.locator(".overview").count() == 0


@pytest.mark.slow
def test_a_training_is_started_watched_stopped_and_resumed(busy_server: Server, opened: Open) -> None:
    tab = opened("#/runs?new=1", at=busy_server)
    pairs = [(line, " ".join(WORDS[word] for word in line.split())) for line in sentences(24)]
    mine = "".join(f"{source}\t{target}\n" for source, target in pairs).encode()
    tab.set_input_files(
        "input[type=file]", files=[{"name": "mine.tsv", "mimeType": "text/plain", "buffer": mine}]
    )
    tab.get_by_role("checkbox", name="mine.tsv").wait_for()
    assert tab.get_by_role("checkbox", name="mine.tsv").is_checked()
    tab.get_by_label("Name", exact=False).fill("my own")
    tab.locator("form select").nth(1).select_option("tiny")
    tab.locator("form select").nth(2).select_option("steps")
    tab.locator("form input[type=number]").first.fill("100000")
    tab.get_by_role("button", name="Train", exact=True).click()
    until(tab, f"{STATE} === 'running' && {STEP} >= 20", 90)
    assert numbers(table(tab, "Loss"))[0][0] == 10
    shoot(tab, "runs-live")
    tab.get_by_role("button", name="Stop", exact=True).click()
    until(tab, f"{STATE} === 'stopped'", 60)
    reached = tab.evaluate(STEP)
    told = httpx2.get(f"{busy_server.address}/api/run", params={"name": "my own"}).json()
    assert told["state"] == "stopped" and told["checkpoints"][-1] >= reached >= 20
    tab.get_by_role("button", name="Go on training").click()
    until(tab, f"{STATE} === 'running' && {STEP} > {reached}", 90)
    steps = [row[0] for row in numbers(table(tab, "Loss"))]
    assert steps == sorted(set(steps))
    tab.get_by_role("button", name="Stop", exact=True).click()
    until(tab, f"{STATE} === 'stopped'", 60)


def test_the_demo_is_one_click_away(busy_server: Server, opened: Open) -> None:
    tab = opened("#/runs?new=1", at=busy_server)
    tab.get_by_role("button", name="Train the demo").click()
    until(tab, f"['preparing', 'running'].includes({STATE})", 60)
    assert tab.locator("article h2").inner_text() == "demo-1"
    tab.get_by_role("button", name="Stop", exact=True).click()
    until(tab, f"{STATE} === 'stopped'", 60)


def test_a_training_that_fails_says_why(busy_server: Server, opened: Open) -> None:
    tab = opened("#/runs?new=1", at=busy_server)
    tab.get_by_role("button", name="Train", exact=True).click()
    assert "at least one file" in refusal(tab).inner_text()
    empty = {"name": "<b>bad.tsv", "mimeType": "text/plain", "buffer": b"no pair\nnone\n"}
    tab.set_input_files("input[type=file]", files=[empty])
    tab.get_by_role("checkbox", name="<b>bad.tsv").wait_for()
    tab.get_by_role("button", name="Train", exact=True).click()
    until(tab, f"{STATE} === 'failed'", 60)
    tab.get_by_role("region", name="What it wrote last").wait_for()
    assert "bad" in tab.locator("article .problem").first.inner_text()
    assert not [text for text in tab.locator("main b").all_inner_texts() if "bad" in text]
    shoot(tab, "runs-failed")


def test_a_name_that_is_taken_is_refused_in_one_sentence(busy_server: Server, opened: Open) -> None:
    (busy_server.place.runs / "taken").mkdir()
    (busy_server.place.runs / "taken" / "something").write_text("mine")
    tab = opened("#/runs?new=1", at=busy_server)
    tab.noted.expected.append("422")
    tab.get_by_role("checkbox", name="text.txt").check()
    tab.locator("form select").first.select_option("generate")
    tab.get_by_label("Name", exact=False).fill("taken")
    tab.get_by_role("button", name="Train", exact=True).click()
    refusal(tab).wait_for()
    assert "taken" in refusal(tab).inner_text()
    assert not (busy_server.place.runs / "taken" / "regard.json").exists()


def test_two_tabs_watch_the_same_run(place: Place, busy_server: Server, opened: Open) -> None:
    with live_run(place, busy_server.place.runs, "tabs") as tell:
        tell(*[trained(step) for step in range(10, 210, 10)])
        first = opened("#/runs?run=tabs", at=busy_server)
        second = opened("#/runs?run=tabs", at=busy_server, context=first.context)
        for tab in (first, second):
            until(tab, f"{STATE} === 'running' && {STEP} === 200")
        tell(*[trained(step) for step in range(210, 310, 10)], evaluated(300, f"{HOSTILE}\n→ ende"))
        for tab in (first, second):
            until(tab, f"{STEP} === 300")
            tab.locator(".sample").wait_for()
            assert "\\u202e" in tab.locator(".sample").inner_text()
            assert "\\x1b[31m" in tab.locator(".sample").inner_text()
        assert table(first, "Loss") == table(second, "Loss")
    for tab in (first, second):
        until(tab, f"{STATE} === 'stopped'")


@pytest.mark.slow
def test_a_server_that_comes_back_is_found_again(place: Place, own_server: Server, opened: Open) -> None:
    with live_run(place, own_server.place.runs, "live") as tell:
        tell(*[trained(step) for step in range(10, 110, 10)])
        tab = opened("#/runs?run=live", at=own_server)
        tab.noted.expected += ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_CONNECTION_RESET"]
        until(tab, f"{STEP} === 100")
        own_server.kill()
        tab.get_by_text("The server does not answer.").first.wait_for()
        assert len(table(tab, "Loss")) == 10
        shoot(tab, "runs-lost")
        tell(*[trained(step) for step in range(110, 160, 10)])
        own_server.start()
        until(tab, f"{STEP} === 150", 40)
        tab.get_by_text("The server does not answer.").first.wait_for(state="detached")
        assert [row[0] for row in numbers(table(tab, "Loss"))] == list(range(10, 160, 10))
        own_server.stop()
        tab.get_by_text("The server does not answer.").first.wait_for()
        own_server.start()
        tell(trained(160))
        until(tab, f"{STEP} === 160", 40)


def test_a_tab_that_nobody_sees_rests_and_catches_up(place: Place, busy_server: Server, opened: Open) -> None:
    shown = "value => { Object.defineProperty(document, 'visibilityState', {get: () => value, configurable: true});"
    shown += " document.dispatchEvent(new Event('visibilitychange')); }"
    with live_run(place, busy_server.place.runs, "unseen") as tell:
        tell(*[trained(step) for step in range(10, 110, 10)])
        tab = opened("#/runs?run=unseen", at=busy_server)
        until(tab, f"{STEP} === 100")
        tab.evaluate(shown, "hidden")
        tell(*[trained(step) for step in range(110, 210, 10)])
        tab.wait_for_timeout(1500)
        assert tab.evaluate(STEP) == 100
        tab.evaluate(shown, "visible")
        until(tab, f"{STEP} === 200")
        assert [row[0] for row in numbers(table(tab, "Loss"))] == list(range(10, 210, 10))


def test_a_long_run_is_drawn_by_means(place: Place, busy_server: Server, opened: Open) -> None:
    lines = [trained(step, lr=step / 1e6) for step in range(10, 90_010, 10)]
    with live_run(place, busy_server.place.runs, "long") as tell:
        tell(*lines)
        tab = opened("#/runs?run=long", at=busy_server)
        until(tab, f"{STEP} === 90000", 40)
        path = chart(tab, "Learning rate").locator("path.line").get_attribute("d")
        assert 900 < path.count("L") + 1 <= 2000
        every = 8  # 9000 measurements in at most 2000 points: halved thrice
        assert f"the mean of {every} measurements" in tab.locator("article").inner_text()
        for step, rate in numbers(table(tab, "Learning rate"))[:-1]:
            mine = [line["lr"] for line in lines if step - 10 * every < line["step"] <= step]
            assert len(mine) == every
            assert rate == pytest.approx(sum(mine) / every, rel=2e-3, abs=6e-6)


def test_a_view_is_kept_and_comes_back(busy_server: Server, opened: Open) -> None:
    tab = opened("#/runs?new=1&x=time", at=busy_server)
    tab.get_by_role("heading", name="Runs").wait_for()
    httpx2.post(f"{busy_server.address}/api/views", json={"title": HOSTILE, "place": "/runs?new=1&log=1"})
    tab.goto(f"{busy_server.address}/#/saved")
    link = tab.get_by_role("link", name="evil")
    link.wait_for()
    assert "\\u202e" in link.inner_text() and tab.locator("main img").count() == 0
    shoot(tab, "saved")
    link.click()
    until(tab, "location.hash === '#/runs?new=1&log=1'")
    tab.get_by_role("button", name="Train the demo").wait_for()


def test_what_is_kept_can_be_taken_away(busy_server: Server, opened: Open) -> None:
    address = busy_server.address
    httpx2.delete(f"{address}/api/history")
    for number in range(3):
        asked = {"kind": "explore", "title": f"text {number}", "place": f"/explore?text={number}"}
        httpx2.post(f"{address}/api/history", json=asked)
    tab = opened("#/saved", at=busy_server)
    tab.get_by_role("button", name="Remove text 1").click()
    tab.get_by_role("link", name="text 1").wait_for(state="detached")
    told = httpx2.get(f"{address}/api/history").json()["items"]
    assert [one["title"] for one in told] == ["text 2", "text 0"]
    tab.get_by_role("button", name="Remove all").click()
    tab.get_by_role("button", name="No", exact=True).click()
    assert len(httpx2.get(f"{address}/api/history").json()["items"]) == 2
    tab.get_by_role("button", name="Remove all").click()
    tab.get_by_role("button", name="Yes, remove").click()
    tab.get_by_text("Nothing yet").wait_for()
    assert httpx2.get(f"{address}/api/history").json()["items"] == []


def test_settings_last(busy_server: Server, opened: Open) -> None:
    tab = opened("#/saved", at=busy_server)
    settings = tab.get_by_role("region", name="Settings")
    settings.get_by_label("Theme").select_option("dark")
    settings.get_by_label("Language").select_option("de")
    tab.get_by_role("heading", name="Gemerkt", exact=True).wait_for()
    until(tab, "document.documentElement.dataset.theme === 'dark'")
    holds(
        {"language": "de", "theme": "dark"}, lambda: httpx2.get(f"{busy_server.address}/api/settings").json()
    )
    again = opened("#/runs", at=busy_server)
    again.get_by_role("heading", name="Läufe", exact=True).wait_for()
    assert again.evaluate("document.documentElement.lang") == "de"
    shoot(again, "runs-german-dark")
    httpx2.put(f"{busy_server.address}/api/settings", json={"language": None, "theme": None})


def test_a_run_that_is_gone_leaves_the_list(place: Place, busy_server: Server, opened: Open) -> None:
    for name in ("stays", "goes"):
        shutil.copytree(place.runs / "translator", busy_server.place.runs / name)
    tab = opened("#/runs?run=stays", at=busy_server)
    tab.noted.expected.append("404")
    chart(tab, "Loss").locator("path.line").wait_for()
    shutil.rmtree(busy_server.place.runs / "goes")
    listed = tab.get_by_role("list", name="The runs").get_by_role("button", name="goes")
    listed.click()
    listed.wait_for(state="detached")
    tab.get_by_text("There is no run called goes.").wait_for()
    shutil.rmtree(busy_server.place.runs / "stays")


def test_the_saved_button_keeps_where_one_is(opened: Open, server: Server) -> None:
    tab = opened("#/runs?run=other&log=1")
    tab.get_by_role("button", name="Keep this view").click()
    tab.get_by_text("Kept under Saved").wait_for()
    kept = httpx2.get(f"{server.address}/api/views").json()["items"][0]
    assert kept["title"] == "Runs: other" and kept["place"].startswith("/runs?run=other&log=1")
    again = opened("#/saved")
    again.get_by_role("link", name="Runs: other").first.click()
    until(again, "location.hash.startsWith('#/runs?run=other')")
    assert again.get_by_label("Logarithmic loss").is_checked()


def test_a_false_address_is_no_harm(opened: Open) -> None:
    for address in (
        "run=no+such+run&with=%00|../x&measure=constructor&checkpoint=NaN",
        "run=../../etc",
        "x=%E0%A4%A",
    ):
        tab = opened(f"#/runs?{address}")
        tab.get_by_role("button", name="translator").first.wait_for()
        tab.wait_for_timeout(200)
