"""What holds for every view of the page: for a screen reader, in either theme, on a phone, and for hours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.serve.browser import Open, Place, Server, evaluated, holds, live_run, shoot, trained, until

pytestmark = pytest.mark.timeout(300)
TEXT = "the+dog+sees+a+cat"
VIEWS = {
    "explore": f"#/explore?model=translator&text={TEXT}&view=sentence&off=cross.1.0&layer=cross.1&head=0",
    "overview": f"#/explore?model=translator&text={TEXT}&view=overview",
    "matrix": f"#/explore?model=writer&text={TEXT}&view=matrix",
    "translate": f"#/translate?model=translator&beams=2&text={TEXT}&max=8&run=1",
    "generate": "#/generate?model=writer&text=a+dog&tokens=8&run=1",
    "chat": "#/generate?mode=chat",
    "classify": f"#/read?verb=classify&model=classifier&text={TEXT}&run=1",
    "tag": f"#/read?verb=tag&model=tagger&text={TEXT}&run=1",
    "fill": "#/read?verb=fill&model=filler&text=a+[MASK]+runs&run=1",
    "embed": "#/read?verb=embed&model=filler&run=1&query=a+dog&text=a+dog%0Aa+cat%0Athe+street",
    "long": "#/long?model=writer",
    "runs": "#/runs?run=translator&with=other&new=1",
    "compare": f"#/compare?model=translator&text={TEXT}",
    "lab": "#/lab?claim=L6",
    "saved": "#/saved",
}
SHOWN = {
    "explore": ".found", "overview": ".roles:not([aria-busy=true])", "matrix": '[data-ready="true"]',
    "translate": "g.node", "generate": ".choice", "classify": ".on-text", "fill": ".gap", "embed": ".texts",
    "lab": "article img",
}  # fmt: skip
LOOKS = {"light": ("light", 1280), "dark": ("dark", 1280), "phone": ("light", 390), "narrow": ("dark", 360)}
FIRST_LOAD = 300_000
STEP = "Number(document.querySelector('article')?.dataset.step)"
AXE = """async () => {
  const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
  const found = await axe.run(document, {runOnly: tags, resultTypes: ['violations']});
  const show = nodes => nodes.slice(0, 4).map(node => node.html.slice(0, 160)).join(' | ');
  return found.violations.map(one => `${one.id}: ${show(one.nodes)}`);
}"""

HOSTILE = """() => {
  const made = document.createElement('script');
  made.textContent = 'window.hit = 1';
  document.body.append(made);
  document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.hit=1">');
}"""


@pytest.fixture(scope="module")
def axe(repo: Path) -> str:
    """Give axe-core's source."""
    path = repo / "web" / "node_modules" / "axe-core" / "axe.min.js"
    if not path.is_file():
        pytest.skip("needs axe-core: npm --prefix web ci")
    return path.read_text(encoding="utf-8")


def settle(tab: Any) -> None:
    """Wait until the page asks for nothing any more."""
    tab.locator("main h1, main h2").first.wait_for()
    tab.wait_for_load_state("networkidle")
    tab.wait_for_timeout(300)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_accessible_and_fits(view: str, axe: str, opened: Open) -> None:
    tab = opened(VIEWS[view])
    if view in SHOWN:
        tab.locator(SHOWN[view]).first.wait_for(state="attached")
    if view == "runs":
        settle(tab)
        tab.locator("main .texts + p button").first.click()
        tab.wait_for_timeout(1000)
    settle(tab)
    tab.evaluate(axe)
    wrong = {}
    for look, (theme, width) in LOOKS.items():
        tab.emulate_media(color_scheme=theme, reduced_motion="reduce")
        tab.set_viewport_size({"width": width, "height": 844})
        until(tab, f"document.documentElement.dataset.theme === '{theme}'")
        tab.wait_for_timeout(250)
        shoot(tab, f"all-{view}-{look}")
        if found := tab.evaluate(AXE):
            wrong[look] = found
        wide = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide > 0:
            wrong[f"{look} is too wide"] = wide
    assert not wrong, wrong


@pytest.mark.parametrize("view", ["explore", "translate", "classify", "runs", "lab"])
def test_a_view_in_german_is_accessible_on_a_phone(view: str, axe: str, opened: Open) -> None:
    tab = opened(VIEWS[view], language="de", width=390, height=844)
    settle(tab)
    tab.evaluate(axe)
    shoot(tab, f"all-{view}-german")
    assert tab.evaluate("document.documentElement.lang") == "de"
    assert not tab.evaluate(AXE)
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize(
    "view", ["explore", "translate", "generate", "read", "long", "runs", "compare", "lab", "saved"]
)
def test_the_first_load_is_small(view: str, browser: Any, server: Server) -> None:
    context = browser.new_context()
    tab = context.new_page()
    cdp = context.new_cdp_session(tab)
    cdp.send("Network.enable")
    urls: dict[str, str] = {}
    sizes: dict[str, float] = {}
    cdp.on("Network.responseReceived", lambda told: urls.update({told["requestId"]: told["response"]["url"]}))
    cdp.on(
        "Network.loadingFinished", lambda told: sizes.update({told["requestId"]: told["encodedDataLength"]})
    )
    tab.goto(f"{server.address}/#/{view}")
    settle(tab)
    context.close()
    page = {
        urls[key]: size for key, size in sizes.items() if "/api/look" not in urls[key]
    }  # not what it draws
    assert len(page) >= 4
    assert sum(page.values()) < FIRST_LOAD, page


def test_nothing_leaves_and_nothing_is_made_up(opened: Open) -> None:
    """The policy refuses what a hostile text might try, and the watch over a tab notes it."""
    tab = opened("#/saved")
    settle(tab)
    assert not tab.noted.faults()
    refused = tab.evaluate("fetch('https://example.org/').then(() => 'went', () => 'refused')")
    assert refused == "refused"
    tab.evaluate(HOSTILE)

    def are_noted() -> list[bool]:
        tab.wait_for_timeout(50)
        return [any(word in fault for fault in tab.noted.faults()) for word in ("example.org", "script-src")]

    holds([True, True], are_noted)
    assert tab.evaluate("window.hit") is None
    tab.noted.said.clear()
    tab.noted.requests.clear()


def test_two_tabs_do_not_undo_each_others_settings(busy_server: Server, opened: Open) -> None:
    first = opened("#/saved", at=busy_server)
    second = opened("#/saved", at=busy_server)
    for tab in (first, second):
        tab.get_by_role("region", name="Settings").wait_for()
        tab.wait_for_load_state("networkidle")  # it has asked for the settings
    first.get_by_role("region", name="Settings").get_by_label("Theme").select_option("dark")
    kept = f"{busy_server.address}/api/settings"
    holds("dark", lambda: httpx2.get(kept).json().get("theme"))
    second.get_by_role("region", name="Settings").get_by_label("Language").select_option("de")
    holds({"language": "de", "theme": "dark"}, lambda: httpx2.get(kept).json())
    httpx2.put(kept, json={"language": None, "theme": None})


def held(cdp: Any) -> dict[str, float]:
    """Measure what the page holds after everything that can be let go has been."""
    for _ in range(2):
        cdp.send("HeapProfiler.collectGarbage")
    found = {one["name"]: one["value"] for one in cdp.send("Performance.getMetrics")["metrics"]}
    return {name: found[name] for name in ("JSHeapUsedSize", "Nodes", "JSEventListeners")}


def watched(tab: Any) -> Any:
    cdp = tab.context.new_cdp_session(tab)
    for domain in ("HeapProfiler", "Performance"):
        cdp.send(f"{domain}.enable")
    return cdp


def feed(tab: Any, tell: Callable[..., None], start: int, count: int) -> int:
    """Write so many lines, an evaluation for each hundred, and wait until the page has them; give the last step."""
    for first in range(start, start + count, 2000):
        for step in range(first, min(first + 2000, start + count)):
            tell(
                trained(step + 1),
                *([evaluated(step + 1, f"sample {step} " * 20)] if step % 100 == 99 else []),
            )
        until(tab, f"{STEP} === {min(first + 2000, start + count)}", 60)
    return start + count


def soak(place: Place, busy_server: Server, opened: Open, *, rounds: int, lines: int) -> None:
    """Watch a run for so many rounds of so many lines; what is held after the first ones stays what it is."""
    name = f"live-{rounds}"
    with live_run(place, busy_server.place.runs, name) as tell:
        tab = opened(f"#/runs?run={name}", at=busy_server)
        cdp = watched(tab)
        step = feed(tab, tell, 0, max(lines, 24_000))  # all that is kept is full by then
        before = held(cdp)
        for _ in range(rounds):
            step = feed(tab, tell, step, lines)
        after = held(cdp)
    assert after["JSHeapUsedSize"] < before["JSHeapUsedSize"] * 1.15 + 500_000, (before, after)
    assert after["Nodes"] < before["Nodes"] * 1.1 + 100, (before, after)
    assert after["JSEventListeners"] <= before["JSEventListeners"] + 5, (before, after)


def test_live_training_fills_no_memory(place: Place, busy_server: Server, opened: Open) -> None:
    soak(place, busy_server, opened, rounds=2, lines=10_000)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_hours_of_live_training_fill_no_memory(place: Place, busy_server: Server, opened: Open) -> None:
    soak(place, busy_server, opened, rounds=10, lines=36_000)  # ten hours at ten lines a second


def test_going_between_views_leaves_nothing_behind(place: Place, busy_server: Server, opened: Open) -> None:
    with live_run(place, busy_server.place.runs, "live") as tell:
        tell(*[trained(step) for step in range(1, 500)])
        tab = opened("#/runs?run=live", at=busy_server)
        cdp = watched(tab)

        def back_and_forth(times: int) -> dict[str, float]:
            for _ in range(times):
                tab.evaluate("location.hash = '#/saved'")
                until(tab, "document.querySelector('#saved-views') !== null")
                tab.evaluate("location.hash = '#/runs?run=live'")
                until(tab, f"{STEP} === 499")
            return held(cdp)

        before = back_and_forth(4)
        after = back_and_forth(12)
    assert after["JSHeapUsedSize"] < before["JSHeapUsedSize"] * 1.1 + 300_000, (before, after)
    assert after["Nodes"] < before["Nodes"] * 1.2 + 100, (before, after)
    assert after["JSEventListeners"] <= before["JSEventListeners"] * 1.1 + 10, (before, after)
