"""The page's server under load: how long a tile of a long text's map takes while the server is busy otherwise.

A server of its own process looks at a text of so many tokens with one layer of random weights. Then, at once: a page
drags over the map and zooms, another page writes a text, token by token, without end, and a third has the exact map of
another head worked out. A tile has 256 x 256 cells, at a zoom drawn anew for each, and is asked for as the page does
it: all of its weights at once where they are few, else a sampled preview, which is drawn and marked as such, and then,
up to 2 ** 24 weights, the exact tile. Three requests for tiles and one for an exact one are in flight all the time, the
next as soon as the last one came. Ours is the 95th percentile of the time until a tile can be drawn, in milliseconds;
`exact` has the requests that replace a preview. There is no peer. `quiet` has the same drag without the two others.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regard.bench.common import Options, summarize
from regard.bench.registry import Comparison
from regard.bench.worker import SideError, environment

TARGET_MS = 100
TILE = 256
LANES = 3  # requests for tiles that a page has in flight, beside one for an exact tile
AT_ONCE, ALONE = 2**20, 2**24  # weights of a tile up to which a page asks for all at once, or of it alone
WISHES = 8  # exact tiles that are waited for; what a page no longer shows it calls off
ADDRESS = re.compile(rb"http://127\.0\.0\.1:(\d+)")
ALPHABET = "abcdefghijklmnopqrstuvwxyz ,.\n"


def run(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Serve, drag with and without other work, and report."""
    chosen = {**comparison.settings, **options.settings}
    tokens = chosen["tokens"]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _make(place, tokens, options.seed)
        with served(place) as port:
            look, took = _look(port)
            options.report(f"  looked at {tokens:,} tokens in {took:.1f} s")
            runs: dict[str, list[dict[str, Any]]] = {"quiet": [], "busy": []}
            for k in range(options.rounds):
                for name, some in runs.items():
                    with beside((_writing, _mapping) if name == "busy" else (), port, look):
                        some.append(drag(port, look, tokens, chosen["seconds"], options.seed + k))
                    options.report(f"  {k + 1}/{options.rounds}  {name}: {json.dumps(some[-1])}")
    more = {
        "tokens": tokens, "lanes": LANES, "look_s": took,
        "quiet_p95_ms": statistics.median(one["p95_ms"] for one in runs["quiet"]), "drags": runs,
    }  # fmt: skip
    return summarize(
        comparison.name, {"ours": [one["p95_ms"] for one in runs["busy"]]}, unit="ms", better="less", options=options,
        goal=TARGET_MS, libraries=["fastapi", "uvicorn"], more=more,
    )  # fmt: skip


def _make(place: Path, tokens: int, seed: int) -> None:
    """Make a model of random weights that reads and writes characters, and a text."""
    import torch

    import regard
    from regard.config import ModelConfig
    from regard.models.transformer import build

    torch.manual_seed(seed)
    tokenizer = regard.Tokenizer.train([ALPHABET], kind="char")
    config = ModelConfig(
        kind="decoder", vocab_size=tokenizer.vocab_size, width=128, num_heads=2, num_layers=1, position="rotary",
        context=max(tokens, 4096),
    )  # fmt: skip
    regard.Model(build(config), tokenizer, config).save(place / "runs" / "long")
    (place / "data").mkdir()
    drawn = random.Random(seed)
    (place / "data" / "long.txt").write_text("".join(drawn.choices(ALPHABET, k=tokens - 1)), encoding="utf-8")


@contextmanager
def served(place: Path) -> Iterator[int]:
    """Serve what lies in a folder, and give the port."""
    command = [
        sys.executable, "-P", "-m", "regard", "serve", "--runs", str(place / "runs"), "--data", str(place / "data"),
        "--device", "cpu", "--no-browser", "--port", "0",
    ]  # fmt: skip
    log = place / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=place, env=environment(None))
    try:
        while not (found := ADDRESS.search(log.read_bytes())):
            if process.poll() is not None:
                raise SideError(log.read_text(encoding="utf-8", errors="replace"))
            time.sleep(0.05)
        yield int(found[1])
    finally:
        process.terminate()
        process.wait(60)


def _events(port: int, path: str, asked: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Read a stream of events."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=3600)
    try:
        link.request("POST", path, json.dumps(asked), {"Content-Type": "application/json"})
        answer = link.getresponse()
        if answer.status != 200:
            raise SideError(f"{path}: {answer.status} {answer.read()!r}")
        name = ""
        for line in answer:
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            elif line.startswith(b"data: "):
                yield name, json.loads(line[6:])
    finally:
        link.close()


def _look(port: int) -> tuple[str, float]:
    """Have the text looked at; gives the look's id and the seconds that it took."""
    begin = time.perf_counter()
    for name, told in _events(port, "/api/look", {"model": "long", "file": "long.txt"}):
        if name == "done":
            return told["id"], time.perf_counter() - begin
    raise SideError(f"the look came to no end: {name} {told}")


def _writing(port: int, look: str, stop: threading.Event) -> None:
    """Have texts written without end."""
    while not stop.is_set():
        asked = {"model": "long", "verb": "generate", "text": "a", "max_tokens": 4000, "temperature": 1.0}
        for _ in _events(port, "/api/write", asked):
            if stop.is_set():
                break


def _mapping(port: int, look: str, stop: threading.Event) -> None:
    """Have the map of the second head worked out; where it is left, it goes on the next time."""
    for name, _ in _events(port, "/api/looks/pyramid", {"id": look, "layer": 0, "head": 1}):
        if stop.is_set() or name == "done":
            break


@contextmanager
def beside(others: tuple[Callable[..., None], ...], port: int, look: str) -> Iterator[None]:
    """Do other work while the block goes on."""
    stop = threading.Event()
    threads = [threading.Thread(target=other, args=(port, look, stop), daemon=True) for other in others]
    for one in threads:
        one.start()
    time.sleep(1)
    try:
        yield
    finally:
        stop.set()
        for one in threads:
            one.join()


def drag(port: int, look: str, tokens: int, seconds: float, seed: int) -> dict[str, Any]:
    """Ask for tile after tile in every lane; gives what `_spread` tells of the tiles and of the exact ones."""
    levels = [level for level in range(20) if TILE * 2**level < 2 * tokens]
    wishes: deque[tuple[int, int, int]] = deque(maxlen=WISHES)
    first: list[tuple[int, float]] = []
    exact: list[tuple[int, float]] = []
    end = time.perf_counter() + seconds

    def lane(number: int) -> None:
        drawn = random.Random(seed * LANES + number)
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < end:
            cell = 2 ** drawn.choice(levels)
            row = drawn.randrange(-(-tokens // (TILE * cell)))
            column = drawn.randrange(row + 1)  # the rest is empty
            sampled = cell > 1 and TILE * cell * TILE * cell > AT_ONCE
            first.append((cell, tile(link, look, cell, row, column, sampled=sampled)))
            if sampled and TILE * cell * TILE * cell <= ALONE:
                wishes.append((cell, row, column))
        link.close()

    def exactly() -> None:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.perf_counter() < end:
            if wishes:
                cell, row, column = wishes.pop()
                exact.append((cell, tile(link, look, cell, row, column, sampled=False)))
            else:
                time.sleep(0.001)
        link.close()

    lanes = [threading.Thread(target=lane, args=(number,)) for number in range(LANES)]
    lanes.append(threading.Thread(target=exactly))
    for one in lanes:
        one.start()
    for one in lanes:
        one.join()
    return {"tiles_per_s": len(first) / seconds, **_spread(first), "exact": _spread(exact)}


def tile(
    link: http.client.HTTPConnection, look: str, cell: int, row: int, column: int, *, sampled: bool
) -> float:
    """Ask for one tile of the first head; gives the milliseconds until all of it is there."""
    span = TILE * cell
    place = f"row0={row * span}&row1={(row + 1) * span}&column0={column * span}&column1={(column + 1) * span}"
    begin = time.perf_counter()
    asked = f"id={look}&layer=0&head=0&{place}&cell={cell}&kind=mean&sampled={int(sampled)}"
    link.request("GET", f"/api/looks/window?{asked}")
    answer = link.getresponse()
    data = answer.read()
    if answer.status != 200:
        raise SideError(f"a tile came with {answer.status}: {data!r}")
    return 1000 * (time.perf_counter() - begin)


def _spread(times: list[tuple[int, float]]) -> dict[str, Any]:
    """Give how many there were, percentiles in milliseconds, and the 95th by how many tokens a cell is wide."""
    cells: dict[int, list[float]] = {}
    for cell, took in sorted(times):
        cells.setdefault(cell, []).append(took)
    every = [took for _, took in times]
    return {
        "number": len(every), "median_ms": percentile(every, 0.5), "p95_ms": percentile(every, 0.95),
        "max_ms": max(every),
        "p95_ms_by_cell": {cell: round(percentile(some, 0.95), 1) for cell, some in cells.items()},
    }  # fmt: skip


def percentile(values: list[float], part: float) -> float:
    """Give the value below which a part of all lie."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]
