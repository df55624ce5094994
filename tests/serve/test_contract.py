"""The OpenAPI document against the server: whatever fits or misses it, no answer is a 500; and many at once."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from starlette.testclient import TestClient
from tests.serve.looking import aside

from regard.serve.app import make_app
from regard.serve.house import Settings

METHODS = ("get", "put", "post", "delete")


@pytest.fixture(scope="module")
def app(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """Give an application of its own home, in which much may be written."""
    return make_app(Settings(runs=runs, home=tmp_path_factory.mktemp("home"), most_trainings=0))


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    """Give a client that shares the server between tests."""
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


def test_no_request_that_fits_the_document_or_misses_it_gets_a_500(app: FastAPI, client: TestClient) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own making
        schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
        schema = schemathesis.openapi.from_dict(app.openapi())
        operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == sum(
        len(methods.keys() & set(METHODS)) for methods in app.openapi()["paths"].values()
    )
    seen: dict[str, set[int]] = {}

    def ask(case: Any) -> None:
        given = case.as_transport_kwargs(base_url="http://127.0.0.1:8000")
        named = {
            name: given[name] for name in ("params", "json", "data", "headers") if given.get(name) is not None
        }
        if "data" in named:
            named["content"] = named.pop("data")
        answer = client.request(given["method"], given["url"], **named)
        seen.setdefault(f"{case.method} {case.path}", set()).add(answer.status_code)
        assert answer.status_code != 500, f"{case.method} {case.path} {named}: {answer.text}"

    for operation in operations:
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    strategy = operation.as_strategy(generation_mode=mode)
                    run = settings(
                        max_examples=6,
                        deadline=None,
                        phases=[Phase.generate],
                        suppress_health_check=list(HealthCheck),
                    )(given(strategy)(ask))
                    run()
                except Exception as error:
                    if "Unsatisfiable" not in type(error).__name__:
                        raise
    assert len(seen) == len(operations)
    assert {status for statuses in seen.values() for status in statuses} >= {200, 404, 422}


def test_500_requests_at_50_in_flight_are_all_answered_each_with_its_own(app: FastAPI) -> None:
    def text(k: int) -> str:
        return f"the street was too wide {'very ' * (k % 7)}{k}"

    async def go() -> list[Any]:
        room = asyncio.Semaphore(50)
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://localhost:8000", timeout=60
        ) as client:

            async def one(k: int) -> Any:
                async with room:
                    body = {"model": "writer", "text": text(k)}
                    answer = await client.post("/api/score", json=body)
                    return answer.status_code, answer.json()

            return await asyncio.gather(*(one(k) for k in range(500)))

    alone = {k: app.state.house.models.open("writer").score(text(k)) for k in range(0, 500, 49)}
    found = aside(go)
    assert [status for status, _ in found] == [200] * 500
    for k, (_, answer) in enumerate(found):
        shown = "".join(text(k)[token["start"] : token["end"]] for token in answer["tokens"])
        assert shown.replace(" ", "") == text(k).replace(" ", ""), k
    for k, score in alone.items():
        assert found[k][1]["nats"] == pytest.approx(-score.logprob, rel=1e-4)
