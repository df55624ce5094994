"""Measure the exported page in Chromium's own trace: pointing at 2,000 x 2,000 tokens, panning over 131,072.

Ours is the median frame's work while the pointer moves over a matrix of 2,000 tokens, in milliseconds: everything that
the page's main thread does from one frame to the next. There is no peer: other tools draw one object a weight, and
stop long before. `pan_fps` is how many frames a second are drawn while a map of the long text is dragged at single
weights, at a middle zoom and with all of it in view.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from regard.bench.common import Options, Report, summarize
from regard.bench.registry import Comparison
from regard.errors import DependencyError
from regard.look.capture import Captured
from regard.look.draw.html import write_html
from regard.look.reading import Look, Side, Token, Word
from regard.nn.attention import Attend

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
FRAME_MS = 1000 / 60  # what a screen leaves for a frame
VIEWPORT = {"width": 1400, "height": 1000}


def made_look(tokens: int, seed: int, window: int | None = None) -> Look:
    """Make one causal head of random queries and keys, with positions turned as rotary ones are.

    It looks at the last `window` keys, or at all.
    """
    made = torch.Generator().manual_seed(seed)
    turn = torch.arange(tokens)[:, None] / 10000 ** (torch.arange(32) / 32)
    both = []
    for _ in range(2):
        x = torch.randn(1, 32, generator=made) * torch.ones(tokens, 1) + 0.6 * torch.randn(
            tokens, 32, generator=made
        )
        both.append(torch.cat([x * turn.cos(), x * turn.sin()], -1)[None].bfloat16())
    query, key = both
    last = torch.arange(1, tokens + 1)
    spans = torch.stack([(last - (window or tokens)).clamp(min=0), last], 1)
    normaliser = torch.empty(1, tokens)
    checked = (torch.zeros(1, dtype=torch.long), torch.zeros(1, 1, 64, dtype=torch.float64))
    layer = Captured("decoder.0", query, key, None, normaliser, spans, Attend(0.35), None, checked)
    for rows, columns in layer.blocks(512):
        normaliser[0, rows] = layer.scores(0, rows, columns).logsumexp(-1)
    text = [f"word{k % 997}" for k in range(tokens)]
    named = tuple(Token(word, 8 * k, 8 * k + len(word)) for k, word in enumerate(text))
    words = tuple(Word(word, k, k + 1) for k, word in enumerate(text))
    side = Side("text", "", tuple(range(tokens)), named, words)
    return Look({"text": side}, {"decoder.0": layer}, f"{tokens:,} tokens")


def opened(browser: Any, path: Path, state: str) -> Any:
    """Open a page without a network and wait until it shows a matrix."""
    context = browser.new_context(offline=True, viewport=VIEWPORT)
    tab = context.new_page()
    tab.goto(path.as_uri() + state, timeout=120_000)
    tab.wait_for_selector('[data-ready="true"]', timeout=120_000)
    wait(tab)
    return tab


def wait(tab: Any, seconds: float = 180) -> float:
    """Wait until all that is in view is exact; gives how long it took."""
    begin = time.perf_counter()
    while tab.get_attribute(".rg-note", "data-exact") != "true":
        if time.perf_counter() - begin > seconds:
            break
        tab.wait_for_timeout(50)
    return time.perf_counter() - begin


def traced(browser: Any, tab: Any, act: Any) -> list[dict[str, Any]]:
    """Record Chromium's trace while something is done."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        browser.start_tracing(
            page=tab,
            path=str(path),
            categories=["devtools.timeline", "disabled-by-default-devtools.timeline"],
        )
        act()
        browser.stop_tracing()
        return json.loads(path.read_text(encoding="utf-8"))["traceEvents"]


def frames(events: list[dict[str, Any]]) -> tuple[list[float], list[float], list[float]]:
    """Give each frame's work on the main thread, in ms, by the clock and of the processor, and when frames were drawn.

    The work of a frame is all tasks of the thread that ran the page's frame callbacks, from one callback's end to the
    next one's: the pointer's events, the script, style, layout and painting. By the clock it also has what other
    programs took from it.
    """
    fired = [event for event in events if event["name"] == "FireAnimationFrame"]
    if not fired:
        return [], [], []
    thread = statistics.mode((event["pid"], event["tid"]) for event in fired)
    tasks = [
        event
        for event in events
        if event["name"].endswith("RunTask")
        and event.get("ph") == "X"
        and (event["pid"], event["tid"]) == thread
    ]
    ends = [(task["ts"] + task.get("dur", 0), task) for task in tasks]
    moments = sorted(event["ts"] for event in fired if (event["pid"], event["tid"]) == thread)
    clock, processor = [], []
    for begin, end in itertools.pairwise(moments):
        inside = [task for stop, task in ends if begin < stop <= end]
        clock.append(sum(task.get("dur", 0) for task in inside) / 1000)
        processor.append(sum(task.get("tdur", task.get("dur", 0)) for task in inside) / 1000)
    return clock, processor, [moment / 1e6 for moment in moments]


def pointing(browser: Any, path: Path, moves: int) -> tuple[list[float], dict[str, Any]]:
    """Move the pointer over the whole matrix of 2,000 tokens and measure each frame."""
    tab = opened(browser, path, "#view=matrix")
    box = tab.locator(".rg-above").bounding_box()

    def move() -> None:
        for step in range(moves):
            part = step / moves
            x = box["width"] * (0.15 + 0.8 * (0.5 + 0.5 * math.sin(7 * part)))
            y = box["height"] * (0.1 + 0.85 * part)
            tab.mouse.move(box["x"] + x, box["y"] + y)

    move()  # once before, so that what is measured is not the first use of each function
    clock, processor, _ = frames(traced(browser, tab, move))
    cells = tab.evaluate("document.querySelector('.rg-note').textContent")
    tab.context.close()
    more = {"frames": len(clock), "matrix_px": [box["width"], box["height"]], "matrix_cells": cells}
    return clock, {"pointing": {"clock_ms": spread(clock), "processor_ms": spread(processor), **more}}


def spread(values: list[float]) -> dict[str, float]:
    """Give the median, the 99th percentile and the largest."""
    return {"median": statistics.median(values), "p99": quantile(values, 0.99), "max": max(values)}


def quantile(values: list[float], part: float) -> float:
    """Give the value below which a part of all lie."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def panning(
    browser: Any, path: Path, zooms: dict[str, int], seconds: float, report: Report
) -> dict[str, Any]:
    """Drag the map for some seconds at several zooms and count the frames in which it moved."""
    found: dict[str, Any] = {}
    tab = opened(browser, path, "#view=matrix&row=60000&column=59000")
    box = tab.locator(".rg-above").bounding_box()
    for name, clicks in zooms.items():
        tab.click('[aria-label="Whole matrix"]')
        for _ in range(clicks):
            tab.click('[aria-label="Zoom in"]')
        tab.wait_for_timeout(1000)

        def drag() -> None:
            middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            tab.mouse.move(*middle)
            tab.mouse.down()
            begin = time.perf_counter()
            while (now := time.perf_counter() - begin) < seconds:
                tab.mouse.move(middle[0] + 300 * math.sin(2 * now), middle[1] + 300 * math.cos(3 * now))
            tab.mouse.up()

        clock, processor, moments = frames(traced(browser, tab, drag))
        gaps = [b - a for a, b in itertools.pairwise(moments)]
        found[name] = {
            "fps": 1 / statistics.median(gaps), "fps_of_slowest_in_100": 1 / quantile(gaps, 0.99),
            "clock_ms": spread(clock), "processor_ms": spread(processor), "frames": len(moments),
            "cells": tab.inner_text(".rg-note"), "exact_after_s": wait(tab, 60),
        }  # fmt: skip
        report(f"  {name}: {found[name]}")
    tab.context.close()
    return found


def run(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Export two looks and measure them; with `window` each query of the long text looks at so many keys, 0 all."""
    chosen = {**comparison.settings, **options.settings}
    tokens, window = chosen["tokens"], chosen["window"] or None
    chromium = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if chromium is None:
        raise DependencyError("no Chromium: install the package chromium of your system.")
    from playwright.sync_api import sync_playwright

    more: dict[str, Any] = {"tokens": tokens, "window": window}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        short, long = Path(folder) / "short.html", Path(folder) / "long.html"
        write_html(made_look(2000, options.seed), short)
        begin = time.perf_counter()
        look = made_look(tokens, options.seed, window)
        more["made_s"] = time.perf_counter() - begin
        begin = time.perf_counter()
        write_html(look, long)
        more |= {"export_s": time.perf_counter() - begin, "export_mb": long.stat().st_size / 1e6}
        options.report(f"  exported: {more}")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        more["chromium"] = browser.version
        work, figures = pointing(browser, short, chosen["moves"])
        more |= figures
        options.report(f"  pointing: {figures}")
        levels = max(1, round(math.log(tokens / 2048, 1.6)))
        zooms = {"all": 0, "middle": levels, "single": levels + 10}
        more["panning"] = panning(browser, long, zooms, 4, options.report)
        browser.close()
    more["pan_fps"] = min(zoom["fps"] for zoom in more["panning"].values())
    return summarize(
        comparison.name, {"ours": work}, unit="ms", better="less", options=options, goal=FRAME_MS,
        libraries=["playwright"], more=more,
    )  # fmt: skip
