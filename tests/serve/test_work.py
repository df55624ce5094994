"""The queue: in order, bounded, and without anything that nobody waits for."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from starlette.requests import Request
from tests.serve.looking import aside

from regard.errors import DataError
from regard.nn.taps import tap
from regard.serve.house import Missing
from regard.serve.work import Busy, Job, Left, Work


class Client:
    """Be a client that sends a request and may leave."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.sent: list[Any] = []

    @property
    def request(self) -> Request:
        return Request({"type": "http", "headers": []}, self.receive)

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def read(self, response: Any) -> str:
        await response({"type": "http"}, self.receive, self.send)
        return b"".join(part.get("body", b"") for part in self.sent).decode()


@pytest.fixture
def work() -> Iterator[Work]:
    made = Work(workers=1, waiting=3)
    yield made
    made.close()


def soon(found: Callable[[], bool]) -> bool:
    """Wait until something is so, at most ten seconds."""
    end = time.monotonic() + 10
    while not found() and time.monotonic() < end:
        time.sleep(0.005)
    return found()


def test_an_answer_comes_back_and_an_error_is_raised(work: Work) -> None:
    async def go() -> None:
        client = Client()
        assert await work.run(lambda job: 6 * 7, client.request) == 42
        with pytest.raises(DataError, match="too long"):
            await work.run(lambda job: _raise(DataError("too long")), client.request)
        assert await work.run(lambda job: "still here", client.request) == "still here"

    aside(go)


@pytest.mark.parametrize("error", [StopIteration(), StopIteration("empty")])
def test_a_job_that_ends_with_what_no_future_takes_is_answered(work: Work, error: StopIteration) -> None:
    async def go() -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.wait_for(work.run(lambda job: _raise(error), Client().request), 10)

    aside(go)


def _raise(error: BaseException) -> Any:
    raise error


def test_many_answers_are_not_mixed_up() -> None:
    work = Work(workers=2, waiting=500)

    async def go() -> list[int]:
        asked = [
            work.run(lambda job, k=k: (time.sleep(0.0005 * (k % 3)), k)[1], Client().request)
            for k in range(300)
        ]
        return await asyncio.gather(*asked)

    try:
        assert aside(go) == list(range(300))
    finally:
        work.close()


def test_a_full_queue_refuses_at_once_and_takes_work_again_later(work: Work) -> None:
    held = threading.Event()

    async def go() -> None:
        waiting = [
            asyncio.ensure_future(work.run(lambda job: held.wait(10), Client().request)) for _ in range(4)
        ]
        await asyncio.sleep(0.1)  # one runs, three wait
        with pytest.raises(Busy):
            await work.run(lambda job: None, Client().request)
        held.set()
        assert all(await asyncio.gather(*waiting))
        assert await work.run(lambda job: "room", Client().request) == "room"

    aside(go)


def test_a_client_that_leaves_ends_its_work_at_the_next_sublayer_and_its_place_is_free(work: Work) -> None:
    passed: list[int] = []

    def endless(job: Job) -> None:
        while True:
            tap("decoder.0", torch.zeros(1))
            passed.append(1)
            time.sleep(0.001)

    async def go() -> int:
        client = Client()
        running = asyncio.ensure_future(work.run(endless, client.request))
        while not passed:
            await asyncio.sleep(0.005)
        client.gone.set()
        with pytest.raises(Left):
            await running
        seen = len(passed)
        assert await work.run(lambda job: "next", Client().request) == "next"
        return seen

    seen = aside(go)
    assert len(passed) <= seen + 2


def test_a_client_that_leaves_while_it_waits_never_runs(work: Work) -> None:
    held, ran = threading.Event(), []

    async def go() -> None:
        first = asyncio.ensure_future(work.run(lambda job: held.wait(10), Client().request))
        client = Client()
        second = asyncio.ensure_future(work.run(lambda job: ran.append(1), client.request))
        await asyncio.sleep(0.05)
        client.gone.set()
        with pytest.raises(Left):
            await second
        assert len(work) == 1
        held.set()
        await first

    aside(go)
    assert soon(lambda: len(work) == 0)
    assert not ran


def test_a_stream_tells_its_events_in_order_as_ascii(work: Work) -> None:
    def count(job: Job) -> None:
        for k in range(600):  # more than a client may be behind
            job.tell("token", {"k": k, "text": "é\n\ndata: x\u2028\ud800", "nan": float("nan")})
        job.tell("done", {})

    async def go() -> str:
        client = Client()
        return await client.read(work.stream(count, client.request))

    text = aside(go)
    assert text.isascii()
    events = text.split("\n\n")
    assert events[0] == "event: started\ndata: {}"
    assert [event for event in events if event.startswith("event: token")][599].startswith(
        'event: token\ndata: {"k": 599, "text": "\\u00e9\\n\\ndata: x\\u2028\\ud800", "nan": null}'
    )
    assert events[-2:] == ["event: done\ndata: {}", ""]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DataError("the text has\n9 tokens."), "the text has 9 tokens."),
        (Missing("there is no model 'x'."), "there is no model 'x'."),
        (ValueError("/home/secret"), "this failed on the server (ValueError); its log says more."),
        (MemoryError(), "there is too little memory for this."),
    ],
)
def test_an_error_in_a_stream_is_told_in_one_sentence(work: Work, error: Exception, said: str) -> None:
    async def go() -> str:
        client = Client()
        return await client.read(work.stream(lambda job: _raise(error), client.request))

    text = aside(go)
    assert f'event: failed\ndata: {{"error": "{said}"}}' in text
    assert aside(lambda: work.run(lambda job: "alive", Client().request)) == "alive"


def test_a_stream_says_how_many_are_before_it(work: Work) -> None:
    held = threading.Event()

    async def go() -> str:
        first = asyncio.ensure_future(work.run(lambda job: held.wait(10), Client().request))
        await asyncio.sleep(0.05)
        client = Client()
        reading = asyncio.ensure_future(
            client.read(work.stream(lambda job: job.tell("done", {}), client.request))
        )
        await asyncio.sleep(0.05)
        held.set()
        await first
        return await reading

    assert aside(go).startswith('event: queued\ndata: {"ahead": 1}\n\nevent: started')


def test_a_reader_that_stops_reading_without_leaving_frees_the_thread(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regard.serve.work._PATIENCE", 0.1)

    def endless(job: Job) -> None:
        while True:
            job.tell("token", {})

    async def go() -> str:
        client = Client()
        stream = work.stream(endless, client.request)
        assert await work.run(lambda job: "room", Client().request) == "room"
        return await client.read(stream)

    told = aside(go)
    assert told.endswith('event: failed\ndata: {"error": "this was ended since nobody read what came."}\n\n')


def test_the_end_of_the_server_ends_every_answer_even_of_work_that_does_not_listen(work: Work) -> None:
    held = threading.Event()

    async def go() -> str:
        deaf = asyncio.ensure_future(work.run(lambda job: held.wait(10), Client().request))
        await asyncio.sleep(0.05)
        client = Client()
        waiting = asyncio.ensure_future(client.read(work.stream(lambda job: None, client.request)))
        await asyncio.sleep(0.05)
        work.close(0)
        with pytest.raises(Left):
            await asyncio.wait_for(deaf, 5)
        with pytest.raises(Busy):
            await work.run(lambda job: None, Client().request)
        return await asyncio.wait_for(waiting, 5)

    try:
        assert aside(go) == 'event: queued\ndata: {"ahead": 1}\n\n'
    finally:
        held.set()


def test_long_jobs_leave_a_thread_to_short_ones() -> None:
    work, held, begun = Work(workers=2, waiting=10), threading.Event(), list[int]()

    def endless(k: int) -> bool:
        begun.append(k)
        return held.wait(10)

    async def go() -> None:
        longs = [
            asyncio.ensure_future(work.run(lambda job, k=k: endless(k), Client().request, long=True))
            for k in range(3)
        ]
        await asyncio.sleep(0.05)
        client = Client()
        waiting = asyncio.ensure_future(
            client.read(work.stream(lambda job: job.tell("done", {}), client.request, long=True))
        )
        await asyncio.sleep(0.05)
        assert await asyncio.wait_for(work.run(lambda job: "short", Client().request), 5) == "short"
        assert begun == [0] and soon(lambda: len(work) == 4)
        held.set()
        assert all(await asyncio.gather(*longs)) and begun == [0, 1, 2]
        assert (await waiting).startswith('event: queued\ndata: {"ahead": 3}\n\nevent: started')

    try:
        aside(go)
    finally:
        work.close()


def test_with_one_thread_long_jobs_still_run_in_their_turn(work: Work) -> None:
    async def go() -> list[int]:
        asked = [work.run(lambda job, k=k: k, Client().request, long=k % 2 == 0) for k in range(4)]
        return await asyncio.gather(*asked)

    assert aside(go) == [0, 1, 2, 3]


def test_a_reader_that_leaves_a_stream_ends_its_work(work: Work) -> None:
    told: list[int] = []

    def endless(job: Job) -> None:
        while True:
            job.tell("token", {})
            told.append(1)
            time.sleep(0.001)

    async def go() -> None:
        client = Client()
        reading = asyncio.ensure_future(client.read(work.stream(endless, client.request)))
        while len(told) < 5:
            await asyncio.sleep(0.005)
        client.gone.set()
        await reading

    aside(go)
    assert soon(lambda: len(work) == 0)
    seen = len(told)
    time.sleep(0.05)
    assert len(told) == seen


def test_a_reader_that_stops_reading_holds_the_work_up_and_not_the_memory() -> None:
    work = Work(workers=1, waiting=3)
    told: list[int] = []

    def endless(job: Job) -> None:
        while True:
            job.tell("token", {})
            told.append(1)

    async def go() -> None:
        client = Client()

        async def stuck(message: Any) -> None:
            await asyncio.Event().wait()

        response = work.stream(endless, client.request)
        reading = asyncio.ensure_future(response({"type": "http"}, client.receive, stuck))
        await asyncio.sleep(0.3)
        assert len(told) < 300
        client.gone.set()
        await reading

    try:
        aside(go)
        assert soon(lambda: len(work) == 0)
    finally:
        work.close()


def test_closing_ends_what_runs() -> None:
    work = Work(workers=2, waiting=3)
    ended = threading.Event()

    def endless(job: Job) -> None:
        try:
            while True:
                job.check()
                time.sleep(0.001)
        finally:
            ended.set()

    async def go() -> None:
        running = asyncio.ensure_future(work.run(endless, Client().request))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(work.close)
        with pytest.raises(Left):
            await running
        with pytest.raises(Busy):
            await work.run(lambda job: None, Client().request)

    aside(go)
    assert ended.is_set()
