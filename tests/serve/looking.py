"""What tests of looks ask a server, and how they read its answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from starlette.testclient import TestClient

from regard.look.reading import Look

T = TypeVar("T")
SOURCE, TARGET = "the animal didn't cross the street", "l'animal n'a pas traversé la rue"


def aside(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in a thread of its own: where a browser is under test, this one has a loop already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


def told(text: str) -> list[tuple[str, Any]]:
    parts = [part.split("\n") for part in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in parts]


def stream(client: TestClient, path: str, **asked: Any) -> list[tuple[str, Any]]:
    answer = client.post(path, json=asked)
    assert answer.status_code == 200, answer.text
    return told(answer.text)


def take(client: TestClient, model: str = "translator", **asked: Any) -> str:
    asked = asked or {"text": SOURCE, "target": TARGET}
    events = stream(client, "/api/look", model=model, **asked)
    assert events[-1][0] == "done", events
    return str(events[-1][1]["id"])


def kept(client: TestClient, name: str) -> Look:
    found: Look = client.app.state.looks.looks.get(name).look  # type: ignore[attr-defined]
    return found


def floats(client: TestClient, what: str, **asked: Any) -> tuple[torch.Tensor, Any]:
    answer = client.get(f"/api/looks/{what}", params=asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    return torch.from_numpy(np.frombuffer(answer.content, "<f4").copy()), answer.headers
