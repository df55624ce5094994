"""What the tests of the page share: a small world of models and runs, the real server, and a watched browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.cli import verb_models
from tests.tasks.small import make_parts, save
from tests.tasks.talker import talker
from tests.tiny_data import write_all

import regard
from regard.serve.house import Settings
from regard.serve.runs_started import Starter
from regard.tasks.folders import locked

PAGE = Path(regard.__file__).parent / "serve" / "page" / "index.html"
ADDRESS = re.compile(rb"http://127\.0\.0\.1:\d+[^\s\x1b]*")
FRAMED = "[CLS] {first} [SEP]"
TINY: dict[str, Any] = {
    "width": 16, "num_heads": 2, "num_layers": 2, "precision": "fp32", "evaluate_every": 4, "save_every": 4,
    "log_every": 1, "warmup": 2, "keep": 8, "device": "cpu",
}  # fmt: skip


@dataclass
class Place:
    """Hold where a server works: `runs`, with the models in it, and `data`, files to train on."""

    runs: Path
    data: Path


@dataclass
class Server:
    """Hold a server of its own process; `start` after `stop` or `kill` is the same server at the same address."""

    place: Place
    log: Path
    process: subprocess.Popen[bytes] | None = None
    address: str = ""
    port: int = 0

    def start(self) -> None:
        """Start it, and wait until it says its address."""
        command = [
            sys.executable, "-m", "regard", "serve", "--runs", str(self.place.runs), "--data", str(self.place.data),
            "--device", "cpu", "--no-browser", "--port", str(self.port),
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.place.runs.parent)
        deadline = time.monotonic() + 90
        while not (found := ADDRESS.search(self.log.read_bytes())):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        self.address = found[0].decode().rstrip("/.,")
        self.port = urlsplit(self.address).port or 0

    def said(self) -> str:
        """Give what it has written."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """Ask it to end, and see that it does."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end: {self.said()}") from None
        finally:
            self.process = None

    def stop_trainings(self) -> None:
        """End the trainings that were started from its page, which go on without it."""
        starter = Starter(Settings(runs=self.place.runs, home=self.place.runs / ".serve"))
        deadline = time.monotonic() + 60
        while alive := starter.alive():
            assert time.monotonic() < deadline, f"{alive} did not end"
            for name in alive:
                starter.stop(name)
            time.sleep(0.2)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def make_place(root: Path) -> Place:
    """Make runs and data: two trained translators whose checkpoints are kept, and random models for the other verbs."""
    place = Place(root / "runs", root / "data")
    place.data.mkdir(parents=True)
    write_all(place.data)
    save(talker(), place.runs / "talker")
    save(make_parts("decoder", words="bpe", position="rotary", context=128), place.runs / "writer")
    save(
        verb_models.make("encoder", FRAMED, head="classify", labels=("good", "bad")),
        place.runs / "classifier",
    )
    save(
        verb_models.make("encoder", FRAMED, head="tag", labels=("O", "B-PER", "I-PER")), place.runs / "tagger"
    )
    save(verb_models.make("encoder", FRAMED), place.runs / "filler")
    save(verb_models.make("encoder", FRAMED, head="span"), place.runs / "answerer")
    pairs = [place.data / "pairs.en", place.data / "pairs.fr"]
    regard.train("translate", pairs, out=place.runs / "other", steps=16, seed=2, lr=0.01, **TINY)
    regard.train("translate", pairs, out=place.runs / "translator", steps=24, seed=1, **TINY)
    return place


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Give a folder of runs and one of data, made once."""
    return make_place(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def server(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server of these runs, shared between tests: what one stores in it, another may see."""
    if not PAGE.is_file():
        pytest.skip("needs the page: make web")
    running = Server(place, tmp_path_factory.mktemp("log") / "server.log")
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def busy_server(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give a server with the shared data and no runs to begin with, in which a module's tests train."""
    yield from _own(place, tmp_path_factory.mktemp("busy"))


@pytest.fixture
def own_server(place: Place, tmp_path: Path) -> Iterator[Server]:
    """Give a server with the shared data and no runs, of one test alone, which may stop it and start it again."""
    yield from _own(place, tmp_path)


def _own(place: Place, folder: Path) -> Iterator[Server]:
    if not PAGE.is_file():
        pytest.skip("needs the page: make web")
    (folder / "runs").mkdir()
    running = Server(Place(folder / "runs", place.data), folder / "server.log")
    running.start()
    yield running
    running.stop_trainings()
    running.stop()


@dataclass
class Noted:
    """Hold what a page did: every request, and everything that was said on its console above information.

    A test that brings an error about on purpose puts a pattern into `expected`: "422" or "ERR_CONNECTION_REFUSED".
    """

    home: str
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """List what should not have been: errors, warnings, violations of the policy, requests to elsewhere."""
        said = [text for text in self.said if not any(re.search(known, text) for known in self.expected)]
        own = (f"{self.home}/", "blob:", "data:", "about:")
        return said + [f"request to {url}" for url in self.requests if not url.startswith(own)]


Open = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Give a function which opens the page at a place, "#/runs", in a tab that is watched until the test ends.

    `opened(place, theme="light", width=1280, height=900, language="en", at=Server, context=None)` gives Playwright's
    page with `noted`; tabs of one `context` are tabs of one window. The test fails where the page said an error or
    asked another host for anything.
    """
    contexts: list[Any] = []
    tabs: list[Any] = []

    def open_(
        place: str = "", *, theme: str = "light", width: int = 1280, height: int = 900, language: str = "en",
        at: Server | None = None, context: Any = None,
    ) -> Any:  # fmt: skip
        served: Server = at or request.getfixturevalue("server")
        if context is None:
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=theme,
                locale={"en": "en-GB", "de": "de-DE"}[language], service_workers="block", accept_downloads=True,
            )  # fmt: skip
            context.set_default_timeout(20_000)
            contexts.append(context)
        tab = context.new_page()
        tab.noted = noted = Noted(served.address.split("/?")[0].rstrip("/"))
        tab.on("request", lambda asked: noted.requests.append(asked.url))
        tab.on("console", lambda message: _hear(noted, message))
        tab.on("pageerror", lambda error: noted.said.append(f"page error: {error}"))
        tab.on("crash", lambda crashed: noted.said.append("the tab crashed"))
        tabs.append(tab)
        tab.goto(f"{served.address}/{place}" if place else served.address)
        return tab

    yield open_
    faults = [fault for tab in tabs for fault in tab.noted.faults()]
    for context in contexts:
        context.close()
    assert not faults, faults


def _hear(noted: Noted, message: Any) -> None:
    if message.type in ("error", "warning", "assert"):
        noted.said.append(f"{message.type}: {message.text} {message.location.get('url', '')}".strip())


def until(tab: Any, expression: str, seconds: float = 20) -> None:
    """Wait until an expression is true, asked from outside: the page itself may evaluate nothing.

    An expression about something that isn't on the page yet counts as not true yet.
    """
    from playwright.sync_api import Error as PlaywrightError

    deadline = time.monotonic() + seconds
    while True:
        try:
            said = tab.evaluate(expression)
        except PlaywrightError as error:
            if "TypeError" not in error.message:
                raise
            said = False
        if said:
            return
        assert time.monotonic() < deadline, expression
        tab.wait_for_timeout(25)


def holds(expected: Any, ask: Callable[[], Any], seconds: float = 20) -> None:
    """Wait until what the server keeps is what is expected: a page shows a change before the server has it."""
    deadline = time.monotonic() + seconds
    while (found := ask()) != expected:
        assert time.monotonic() < deadline, f"{found!r} is not {expected!r}"
        time.sleep(0.05)


def shoot(tab: Any, name: str) -> None:
    """Take a screenshot into the folder that REGARD_SHOTS names; nothing where it names none."""
    if folder := os.environ.get("REGARD_SHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


Tell = Callable[..., None]


@contextmanager
def live_run(place: Place, runs: Path, name: str) -> Iterator[Tell]:
    """Make a run that goes on as long as the block; `tell(*lines)` adds lines to its journal, as a training does."""
    folder = runs / name
    shutil.copytree(place.runs / "translator", folder)
    record = json.loads((folder / "regard.json").read_text())
    record.pop("result")
    record["training"]["steps"] = 10**6
    (folder / "regard.json").write_text(json.dumps(record))
    journal = folder / "metrics.jsonl"
    journal.write_text("")

    def tell(*lines: dict[str, Any]) -> None:
        with journal.open("a", encoding="utf-8") as file:
            file.write("".join(f"{json.dumps(line)}\n" for line in lines))

    with locked(folder):
        yield tell


def trained(step: int, **changes: Any) -> dict[str, Any]:
    """Give a journal's line of training; the loss falls with the steps."""
    loss = 6 / (1 + step / 5000)
    return {
        "kind": "train", "step": step, "epoch": 1, "loss": loss, "nll": loss, "lr": 1e-3, "grad_norm": 1.0,
        "tokens_per_second": 9000.0 + step % 97, "elapsed": step / 10, **changes,
    }  # fmt: skip


def evaluated(step: int, sample: str) -> dict[str, Any]:
    """Give a journal's line of an evaluation."""
    return {
        "kind": "valid",
        "step": step,
        "bleu": step % 100,
        "improved": True,
        "elapsed": step / 10,
        "sample": sample,
    }
