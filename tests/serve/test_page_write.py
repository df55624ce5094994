"""The page's writing and reading, in a browser before the real server: what it shows is what the library says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from tests.serve.browser import PAGE, TINY, Open, Place, Server, shoot, until
from tests.tiny_data import write_all

import regard
from regard.generate.config import SearchConfig
from regard.generate.logits import compose, filters, forbid
from regard.tasks.steps import Token, Tree, next_token, write
from regard.tasks.verbs import never_written

TEXT = "the dog sees a cat"
HOSTILE = "<img src=x onerror=alert(1)> \u202eevil\x1b[31m <b>a dog</b>"
WEB = Path(__file__).parents[2] / "web"
DONE = "document.querySelector('[data-phase]')?.dataset.phase === 'done'"
PERCENT = re.compile(r"(?:On average over the heads, )?“(.+?)” looked most at “(.+?)” \(([\d.]+) %\)")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server of its own with one model, which has learned to translate sentences of seven words."""
    if not PAGE.is_file():
        pytest.skip("needs the page: make web")
    root = tmp_path_factory.mktemp("spoken")
    place = Place(root / "runs", root / "data")
    place.data.mkdir()
    write_all(place.data)
    pairs = [place.data / "pairs.en", place.data / "pairs.fr"]
    settings = {**TINY, "width": 32, "evaluate_every": 80, "save_every": 80, "warmup": 5}
    regard.train("translate", pairs, out=place.runs / "translator", steps=80, seed=1, lr=0.01, **settings)
    running = Server(place, root / "server.log")
    running.start()
    yield running
    running.stop()


def model_of(place: Place, name: str) -> regard.Model:
    return regard.load(place.runs / name)


def told_steps(place: Place, name: str, verb: str, text: Any, **settings: Any) -> tuple[list[Any], Any]:
    """Write with the library, and give what it tells."""
    events: list[Any] = []
    found = write(model_of(place, name).parts, verb, text, tell=events.append, **settings)
    return events, found


def words(tab: Any, group: str) -> list[str]:
    return tab.get_by_role("group", name=group).get_by_role("button").locator("bdi").all_inner_texts()


def point(tab: Any, group: str, place: int) -> str:
    """Move the mouse onto a word, and give the sentence that is then told."""
    tab.get_by_role("group", name=group).get_by_role("button").nth(place).hover()
    return tab.inner_text("[data-told]")


def test_a_translation_streams_and_each_word_says_where_it_looked(spoken: Server, opened: Open) -> None:
    tab = opened("#/translate?model=translator", at=spoken)
    tab.get_by_label("Your text").fill(TEXT)
    tab.get_by_role("button", name="Translate", exact=True).click()
    until(tab, DONE)
    model = model_of(spoken.place, "translator")
    expected = model.translate(TEXT).text
    assert " ".join(words(tab, "Translation, word by word")) == " ".join(expected.split()) != ""
    steps = [event for event in told_steps(spoken.place, "translator", "translate", TEXT, attention=True)[0]
             if isinstance(event, Token) and not event.end]  # fmt: skip
    source = words(tab, "Your text, word by word")
    assert source == [*TEXT.split(), "<eos>"]
    spans = spans_of(model, TEXT)
    for place_, word in enumerate(expected.split()):
        rows = [step.seen.mean((0, 1)) for step, owner in zip(steps, owners(steps, expected), strict=True)
                if owner == place_]  # fmt: skip
        row = torch.stack(rows).mean(0)
        shares = [float(row[first:last].sum()) for first, last in spans]
        best = max(range(len(shares)), key=shares.__getitem__)
        said = PERCENT.match(point(tab, "Translation, word by word", place_))
        assert said and said[1] == word and said[2] == source[best]
        assert float(said[3]) == pytest.approx(100 * shares[best], abs=0.51)
        lit = tab.get_by_role("group", name="Your text, word by word").locator("[data-share]")
        shown = [float(one.get_attribute("data-share")) for one in lit.all()]
        assert shown[:-1] == pytest.approx(shares, abs=1e-5) and shown[-1] == 0  # the end token is left out
    shoot(tab, "translate")


def test_heads_that_part_over_a_word_are_named_before_their_average(spoken: Server, opened: Open) -> None:
    tab = opened(f"#/translate?model=translator&text={TEXT}&run=1", at=spoken)
    until(tab, DONE)
    model = model_of(spoken.place, "translator")
    expected = model.translate(TEXT).text
    steps = [event for event in told_steps(spoken.place, "translator", "translate", TEXT, attention=True)[0]
             if isinstance(event, Token) and not event.end]  # fmt: skip
    spans, source = spans_of(model, TEXT), TEXT.split()
    for place_, word in enumerate(expected.split()):
        rows = [
            step.seen for step, owner in zip(steps, owners(steps, expected), strict=True) if owner == place_
        ]
        seen = torch.stack(rows).mean(0).flatten(0, 1)
        shares = torch.stack([seen[:, first:last].sum(1) for first, last in spans], 1)
        sure = [source[int(row.argmax())] for row in shares if row.max() > 0.5]
        point(tab, "Translation, word by word", place_)
        said = tab.inner_text("[data-apart]")
        assert f"“{word}”" in said
        assert said.startswith("The heads parted") == (len(set(sure)) > 1)
        counted = re.findall(r"(\d+) (?:of \d+ heads looked )?mostly at “(.+?)”", said)
        assert {text: int(count) for count, text in counted} == {text: sure.count(text) for text in set(sure)}
        if not sure:
            assert said == f"For “{word}” no head looked mostly at one word."
    tab.get_by_label("Which head").select_option("cross.1.1")
    assert tab.locator("[data-apart]").count() == 0


def owners(steps: list[Any], text: str) -> list[int]:
    """Say to which word each token belongs, by the blanks before its characters."""
    found, so_far = [], ""
    for step in steps:
        begun = so_far + step.delta
        found.append(len(begun.split()) - 1)
        so_far = begun
    assert so_far == text
    return found


def spans_of(model: regard.Model, text: str) -> list[tuple[int, int]]:
    """Give each word's tokens [first, last)."""
    side = model.look(text).sides["source"]
    return [(word.start, word.end) for word in side.words if not word.special]


def test_one_head_can_be_chosen_and_the_address_keeps_it(spoken: Server, opened: Open) -> None:
    tab = opened(f"#/translate?model=translator&text={TEXT}&run=1", at=spoken)
    until(tab, DONE)
    tab.get_by_label("Which head").select_option("cross.1.1")
    said = PERCENT.match(point(tab, "Translation, word by word", 0))
    assert "head 1 of layer cross.1" in tab.inner_text(".told")
    steps = [event for event in told_steps(spoken.place, "translator", "translate", TEXT, attention=True)[0]
             if isinstance(event, Token)]  # fmt: skip
    first = owners(steps[:-1], model_of(spoken.place, "translator").translate(TEXT).text).count(0)
    layer = steps[0].layers.index("cross.1")
    row = torch.stack([step.seen[layer, 1] for step in steps[:first]]).mean(0)
    shares = [float(row[a:b].sum()) for a, b in spans_of(model_of(spoken.place, "translator"), TEXT)]
    assert said and said[2] == TEXT.split()[max(range(5), key=shares.__getitem__)]
    until(tab, "location.hash.includes('head=cross.1.1')")
    again = opened(tab.evaluate("location.hash"), at=spoken)
    until(again, DONE)
    assert PERCENT.match(point(again, "Translation, word by word", 0))[0] == said[0]  # type: ignore[index]
    assert again.get_by_label("Your text", exact=True).input_value() == TEXT


def test_a_source_word_shows_who_looked_at_it_by_keyboard_alone(spoken: Server, opened: Open) -> None:
    tab = opened(f"#/translate?model=translator&text={TEXT}&run=1", at=spoken)
    until(tab, DONE)
    group = tab.get_by_role("group", name="Your text, word by word")
    group.get_by_role("button").first.focus()
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.activeElement.innerText.trim()").startswith("dog")
    said = tab.inner_text("[data-told]")
    assert said.startswith("“dog” was looked at most by “")
    rows = tab.get_by_role("group", name="Translation, word by word").locator("[data-share]").all()
    shares = [float(row.get_attribute("data-share")) for row in rows]
    best = words(tab, "Translation, word by word")[max(range(len(shares)), key=shares.__getitem__)]
    assert f"by “{best}”" in said
    assert group.locator("[tabindex='0']").count() == 1
    tab.get_by_label("Which head").select_option("cross.0.1")
    tab.get_by_role("link", name="Look inside").click()
    until(tab, "/explore.*target=.*layer=cross.0&head=1/.test(location.hash)")
    tab.get_by_role("link", name="Translate shows it").click()
    until(tab, DONE)


def test_beams_grow_into_a_tree(spoken: Server, opened: Open) -> None:
    tab = opened(f"#/translate?model=translator&beams=3&text={TEXT}&run=1", at=spoken)
    until(tab, DONE)
    events, found = told_steps(spoken.place, "translator", "translate", TEXT, beams=3, length_penalty=1.0)
    tree = next(event for event in events if isinstance(event, Tree))
    nodes = {int(one.get_attribute("data-node")): one for one in tab.locator("g.node").all()}
    assert set(nodes) == {node.node for node in tree.nodes}
    best = {number for number, one in nodes.items() if one.get_attribute("data-fate") == "best"}
    assert best == set(tree.best)
    ended = {number for number, one in nodes.items() if one.get_attribute("data-fate") == "ended"}
    assert ended - best and {node.node for node in tree.nodes if node.end} <= ended | best
    candidates = tab.locator(".candidates li bdi").all_inner_texts()
    assert [text.replace("∅", "") for text in candidates] == [one.text for one in found.candidates]
    root = tab.locator("g.node[tabindex='0']")
    assert root.count() == 1
    number = int(root.get_attribute("data-node"))
    assert "best, score −" in root.locator("title").text_content()
    root.focus()
    tab.keyboard.press("ArrowRight")
    focused = tab.evaluate("Number(document.activeElement.dataset.node)")
    by_number = {node.node: node for node in tree.nodes}
    assert by_number[focused].parent == number and focused in best
    score = f"Score {by_number[focused].score:.2f}".replace("-", "−")
    assert score in tab.inner_text("section:has(g.node) .told")
    tab.get_by_text("The tree as a list").click()
    assert tab.locator(".leaves li").count() >= 2
    shoot(tab, "beams")


def shown_choices(tab: Any) -> dict[int, tuple[float, float]]:
    """Give each token that is shown: its probability by the model and after the filters."""
    rows = tab.evaluate("[...document.querySelectorAll('.choice')].map(one => ({...one.dataset}))")
    return {int(row["id"]): (float(row["model"]), float(row["after"])) for row in rows}


def test_a_text_streams_and_goes_on_from_another_choice(place: Place, opened: Open) -> None:
    tab = opened("#/generate?model=writer&temperature=0.9&k=40&seed=7&tokens=12")
    tab.get_by_label("How it begins").fill("a dog")
    tab.get_by_role("button", name="Write", exact=True).click()
    until(tab, DONE)
    settings = {"temperature": 0.9, "top_k": 40, "seed": 7}
    expected = told_steps(place, "writer", "generate", "a dog", max_tokens=12, **settings)[1]
    tab.locator(".token").nth(3).click()
    tab.locator(".choice.own").wait_for()
    parts = model_of(place, "writer").parts
    logprobs = next_token(parts, "generate", "a dog", kept=expected.ids[:3]).logprobs
    assert int(tab.locator(".choice.own").get_attribute("data-id")) == expected.ids[3]
    for token, (by_model, _) in shown_choices(tab).items():
        assert by_model == pytest.approx(float(logprobs[token].exp()), abs=1e-6)
    other = next(one for one in tab.locator(".choice:not(.own):not(.cut)").all())
    chosen = int(other.get_attribute("data-id"))
    other.click()
    until(tab, "/run=1\\.[^&]*\\.[^&]*\\.[^&]*\\./.test(location.hash)")
    until(tab, DONE)
    kept = [*expected.ids[:3], chosen]
    branched = told_steps(place, "writer", "generate", "a dog", kept=kept, max_tokens=16, **settings)[1]
    run = re.search(r"run=1\.([\d.]+)", tab.evaluate("location.hash"))
    assert run and [int(token) for token in run[1].split(".")] == kept
    labels = [one.get_attribute("aria-label") for one in tab.locator(".token").all()]
    assert len(labels) == branched.tokens
    again = opened(tab.evaluate("location.hash"))
    until(again, DONE)
    assert [one.get_attribute("aria-label") for one in again.locator(".token").all()] == labels
    shoot(tab, "generate")


@pytest.mark.parametrize(
    "place_of",
    ["temperature=0.5&k=5", "temperature=1.7&p=0.6", "min=0.3", "temperature=0.8&k=20&p=0.8&min=0.1"],
)
def test_sliders_act_on_the_very_same_distribution(place: Place, opened: Open, place_of: str) -> None:
    tab = opened(f"#/generate?model=writer&text=a dog&{place_of}")
    tab.locator(".choice").first.wait_for()
    given = dict(pair.split("=") for pair in place_of.split("&"))
    config = SearchConfig(
        temperature=float(given.get("temperature", 0.8)), top_k=int(given.get("k", 0)),
        top_p=float(given.get("p", 1)), min_p=float(given.get("min", 0)),
    )  # fmt: skip
    parts = model_of(place, "writer").parts
    logprobs = next_token(parts, "generate", "a dog").logprobs
    kept = compose(forbid(never_written(parts)), *filters(config))(
        logprobs[None].float(), torch.zeros(1, 0, dtype=torch.long)
    )[0]
    expected = kept.softmax(-1)
    shown = shown_choices(tab)
    assert len(shown) >= 10
    for token, (_, after) in shown.items():
        assert after == pytest.approx(float(expected[token]), abs=1e-6)
    assert int(tab.get_attribute("[data-left]", "data-left")) == int((kept > float("-inf")).sum())


def test_moving_a_slider_changes_what_is_shown_at_once(opened: Open) -> None:
    tab = opened("#/generate?model=writer&text=a dog&temperature=1")
    tab.locator(".choice").first.wait_for()
    before = shown_choices(tab)
    asked = tab.noted.requests.count(f"{tab.noted.home}/api/next")
    assert asked
    tab.get_by_label("Temperature").fill("0.2")
    until(tab, "location.hash.includes('temperature=0.2')")
    after = shown_choices(tab)
    best = max(before, key=lambda token: before[token][0])
    assert after[best][0] == before[best][0] and after[best][1] > before[best][1] + 0.01
    tab.get_by_label("Temperature").fill("0")
    until(tab, f"document.querySelector('[data-id=\"{best}\"]').dataset.after === '1'")
    assert tab.noted.requests.count(f"{tab.noted.home}/api/next") == asked


NODE = """
import { readFileSync } from "node:fs";
import ts from "TYPESCRIPT";
const code = ts.transpileModule(readFileSync("SOURCE", "utf8"),
  { compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 } }).outputText;
const { shape, best } = await import("data:text/javascript," + encodeURIComponent(code));
const asked = JSON.parse(readFileSync(0, "utf8"));
const answer = asked.map(({ logits, sampling }) => {
  const { logprobs, left, cuts } = shape(Float32Array.from(logits), sampling);
  const told = [...logprobs].map((one) => one === -Infinity ? null : one);
  return { logprobs: told, left, cut: cuts.size, best: best(logprobs, 3) };
});
process.stdout.write(JSON.stringify(answer));
"""


def test_the_filters_of_the_page_are_those_of_the_library() -> None:
    node, compiler = shutil.which("node"), WEB / "node_modules/typescript/lib/typescript.js"
    if node is None or not compiler.is_file():
        pytest.skip("needs Node and web/node_modules")
    draw = torch.Generator().manual_seed(0)
    asked, expected = [], []
    for number in range(120):
        size = (7, 60, 900)[number % 3]  # above and below the part of the vocabulary that top-p sorts first
        logits = torch.randn(size, generator=draw) * (0.3, 2.0, 6.0)[number // 3 % 3]
        if number % 4 == 0:  # many ties
            logits = logits.round()
        if number % 5 == 0:
            logits[int(torch.randint(size, (), generator=draw))] = float("-inf")
        some = torch.rand(4, generator=draw).tolist()
        settings = {"temperature": round(0.2 + 1.8 * some[0], 2), "top_k": int(some[1] * 12) if number % 2 else 0,
                    "top_p": round(0.05 + 0.95 * some[2], 3), "min_p": round(some[3] ** 3, 3)}  # fmt: skip
        logprobs = logits.log_softmax(-1)
        transform = compose(*filters(SearchConfig(**settings)))  # type: ignore[arg-type]
        expected.append(transform(logprobs[None], torch.zeros(1, 0, dtype=torch.long))[0].log_softmax(-1))
        sampling = {"temperature": settings["temperature"], "topK": settings["top_k"],
                    "topP": settings["top_p"], "minP": settings["min_p"]}  # fmt: skip
        values = [value if value > float("-inf") else -1e38 for value in logprobs.tolist()]
        asked.append({"logits": values, "sampling": sampling})
    script = NODE.replace("TYPESCRIPT", compiler.as_uri()).replace(
        "SOURCE", str(WEB / "src/page/views/write/filters.ts")
    )
    done = subprocess.run(
        [node, "--input-type=module", "-e", script], input=json.dumps(asked), capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    for one, wanted in zip(json.loads(done.stdout), expected, strict=True):
        found = torch.tensor([float("-inf") if value is None else value for value in one["logprobs"]])
        possible = wanted > float("-inf")
        assert ((found > -1e30) == possible).all()
        assert found[possible] == pytest.approx(wanted[possible], abs=2e-5)
        assert wanted[one["best"][0]] == wanted.max()


def test_a_chat_keeps_its_turns_and_shows_what_is_said_as_text(place: Place, opened: Open) -> None:
    tab = opened("#/generate?mode=chat&temperature=0&tokens=10")
    tab.get_by_label("System prompt").fill("you are a dog")
    tab.get_by_label("Your turn").fill(HOSTILE)
    tab.get_by_label("Your turn").press("Enter")
    until(tab, DONE)
    system = {"role": "system", "content": "you are a dog"}
    first = told_steps(place, "talker", "chat", [system, {"role": "user", "content": HOSTILE}], temperature=0.0,
                       max_tokens=10)[1]  # fmt: skip
    assert tab.locator(".token").count() == first.tokens
    assert_harmless(tab)
    assert "\\u202eevil\\x1b[31m" in tab.inner_text(".turn.own")
    tab.get_by_label("Your turn").fill("a dog")
    tab.get_by_role("button", name="Send").click()
    until(tab, "document.querySelectorAll('.turn').length === 4")
    until(tab, DONE)
    turns = [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": first.text},
             {"role": "user", "content": "a dog"}]  # fmt: skip
    second = told_steps(place, "talker", "chat", [system, *turns], temperature=0.0, max_tokens=10)[1]
    assert tab.locator(".token").count() == second.tokens
    until(tab, "location.hash.split('role').length === 5")
    again = opened(tab.evaluate("location.hash"))
    until(again, "document.querySelectorAll('.turn').length === 4")
    shoot(tab, "chat")


def assert_harmless(tab: Any) -> None:
    """Nothing of a text became a part of the page, or turned it around."""
    assert tab.evaluate("document.querySelectorAll('main img, main script, main b').length") == 0
    assert "\u202e" not in tab.evaluate("document.querySelector('main').innerText")


def test_writing_can_be_stopped_and_ends_with_its_view(server: Server, opened: Open) -> None:
    tab = opened("#/generate?model=writer&temperature=1&tokens=4000")
    tab.get_by_label("How it begins").fill("a dog")
    tab.get_by_role("button", name="Write", exact=True).click()
    until(tab, "document.querySelectorAll('.token').length > 3")
    tab.get_by_role("button", name="Stop").click()
    tab.get_by_text("Stopped.").wait_for()
    written = tab.locator(".token").count()
    tab.wait_for_timeout(300)
    assert tab.locator(".token").count() == written < 4000
    wait_idle(server)
    tab.get_by_role("button", name="Write", exact=True).click()
    until(tab, "document.querySelectorAll('.token').length > 3")
    tab.get_by_role("link", name="Saved").click()
    until(tab, "location.hash.startsWith('#/saved')")
    wait_idle(server)


def wait_idle(server: Server) -> None:
    deadline = time.monotonic() + 10
    while httpx2.get(f"{server.address}/health").json()["busy"]:
        assert time.monotonic() < deadline, "the server still works for a client that has left"
        time.sleep(0.02)
