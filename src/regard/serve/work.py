"""The work of the models: a bounded queue, a few threads, and an end to what nobody waits for any more.

A route gives a function. It runs in a worker's thread, tells events or returns an answer, and ends soon after its
client has gone: every sublayer of every forward pass asks whether it is still wanted.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from starlette.requests import Request
from torch import Tensor

from regard.errors import RegardError
from regard.nn.taps import tapping
from regard.serve.events import EventResponse, encode, left
from regard.serve.house import Missing
from regard.serve.sentences import Sentences

__all__ = ["LONG", "Busy", "Cancelled", "Job", "Left", "Work"]

T = TypeVar("T")
LONG = 20_000  # characters from which a text's work takes long, and leaves a thread to others
_BEHIND = 256  # events that a client may be behind before the work waits for it
_PATIENCE = 60.0  # seconds without a sign that a client reads on, after which its work ends
_SLOW = "this was ended since nobody read what came."
_RETRY = 2  # seconds after which a full queue is worth another try


class Busy(Exception):  # noqa: N818 - an answer, more than an error
    """Say that the queue is full; the answer is 503, with the seconds after which to try again."""

    retry_after = _RETRY


class Cancelled(BaseException):
    """End a job whose client has gone. No handler of ordinary errors holds it up."""


class Left(Exception):  # noqa: N818 - an answer that nobody reads
    """Say that a job ended since its client has gone, or the server stops."""


class Job:
    """Be one request's work, as its function sees it."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._sink: Callable[[str, dict[str, Any]], None] | None = None

    @property
    def cancelled(self) -> bool:
        """Tell whether nobody waits for it any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask it to end."""
        self._cancelled.set()

    def check(self) -> None:
        """End here where nobody waits any more.

        Raises:
            Cancelled: the client has gone, or the server stops.
        """
        if self._cancelled.is_set():
            raise Cancelled

    def tell(self, name: str, data: dict[str, Any]) -> None:
        """Send an event to the client; waits where the client is far behind.

        Raises:
            Cancelled: the client has gone.
        """
        self.check()
        assert self._sink is not None, "only a stream has somebody to tell"
        self._sink(name, data)

    def _tap(self, name: str, value: Tensor) -> Tensor:
        self.check()
        return value


class _Entry:
    def __init__(self, job: Job, call: Callable[[], None], end: Callable[[], None], *, long: bool) -> None:
        self.job, self.call, self.end, self.long = job, call, end, long


class Work:
    """Run jobs in their order, a few at a time.

    Long jobs never take every thread, if there are two: a short job gets through beside them, and before those that
    wait.

    Args:
        workers: threads.
        waiting: jobs that may wait; more are refused.
        say: puts what went wrong in a sentence.
    """

    def __init__(
        self, *, workers: int = 2, waiting: int = 64, say: Callable[[BaseException], str] | None = None
    ) -> None:
        self.waiting, self.say = waiting, say or Sentences()
        self._entries: deque[_Entry] = deque()
        self._running: set[_Entry] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._most_long = max(1, workers - 1)
        self._threads = [
            threading.Thread(target=self._loop, name=f"work-{k}", daemon=True) for k in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Count the jobs that run or wait."""
        with self._changed:
            return len(self._entries) + len(self._running)

    def close(self, timeout: float = 5.0) -> None:
        """End every job, with its answer, and the threads, as far as they do in these seconds."""
        with self._changed:
            self._closed = True
            for entry in (*self._entries, *self._running):
                entry.job.cancel()
                entry.end()
            self._entries.clear()
            self._changed.notify_all()
        last = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, last - time.monotonic()))

    async def run(self, call: Callable[[Job], T], request: Request, *, long: bool = False) -> T:
        """Do a job and give its result; a client that leaves ends it.

        Raises:
            Busy: the queue is full.
            Left: the client has gone.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        job = Job()

        def settle(value: T | None, error: BaseException | None) -> None:
            if result.done():
                return
            if error is None:
                result.set_result(value)  # type: ignore[arg-type]
            elif isinstance(error, Cancelled):
                result.set_exception(Left())
            elif isinstance(error, StopIteration):  # which no future takes
                wrapped = RuntimeError("a job ended with StopIteration")
                wrapped.__cause__ = error
                result.set_exception(wrapped)
            else:
                result.set_exception(error)

        def work() -> None:
            try:
                value = call(job)
            except BaseException as error:
                _later(loop, settle, None, error)
            else:
                _later(loop, settle, value, None)

        entry = self._submit(job, work, lambda: _later(loop, settle, None, Cancelled()), long=long)
        leaving = asyncio.ensure_future(left(request.receive))
        try:
            either: set[asyncio.Future[Any]] = {result, leaving}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                raise Left
            return result.result()
        finally:
            self._drop(entry)
            leaving.cancel()
            if not result.done():
                result.cancel()
            elif not result.cancelled():
                result.exception()  # has been seen

    def stream(self, call: Callable[[Job], None], request: Request, *, long: bool = False) -> EventResponse:
        """Do a job that tells events, and answer with them; a client that leaves ends it.

        Before its own events come "queued", where others are before it, and "started"; an error becomes the event
        "failed" with a sentence.

        Raises:
            Busy: the queue is full.
        """
        loop = asyncio.get_running_loop()
        coming: asyncio.Queue[bytes | None] = asyncio.Queue()
        room = threading.Semaphore(_BEHIND)
        job = Job()

        def tell(name: str, data: dict[str, Any]) -> None:
            end = time.monotonic() + _PATIENCE
            while not room.acquire(timeout=0.2):
                job.check()
                if time.monotonic() > end:  # a thread is not held for it any longer
                    _later(loop, coming.put_nowait, encode("failed", {"error": _SLOW}))
                    job.cancel()
            _later(loop, coming.put_nowait, encode(name, data))

        def work() -> None:
            try:
                job.tell("started", {})
                call(job)
            except Cancelled:
                pass
            except BaseException as error:
                if not job.cancelled:
                    _later(loop, coming.put_nowait, encode("failed", {"error": self.say(error)}))
                if not isinstance(error, (RegardError, Missing)):
                    raise
            finally:
                _later(loop, coming.put_nowait, None)

        job._sink = tell
        entry = self._submit(
            job, work, lambda: _later(loop, coming.put_nowait, None), long=long,
            before=lambda ahead: coming.put_nowait(encode("queued", {"ahead": ahead})),
        )  # fmt: skip

        async def events() -> AsyncIterator[bytes]:
            while (event := await coming.get()) is not None:
                room.release()
                yield event

        return EventResponse(events(), lambda: self._drop(entry))

    def _submit(
        self, job: Job, call: Callable[[], None], end: Callable[[], None], *, long: bool,
        before: Callable[[int], None] = lambda ahead: None,
    ) -> _Entry:  # fmt: skip
        entry = _Entry(job, call, end, long=long)
        with self._changed:
            ahead = len(self._entries) + len(self._running)
            if self._closed or ahead >= self.waiting + len(self._threads):
                raise Busy
            longs = sum(one.long for one in (*self._entries, *self._running))
            if ahead >= len(self._threads) or (long and longs >= self._most_long):
                before(ahead)
            self._entries.append(entry)
            self._changed.notify_all()
        return entry

    def _next(self) -> _Entry | None:
        """Find the first job that may begin: a long one leaves a thread to short ones."""
        is_room = sum(entry.long for entry in self._running) < self._most_long
        return next((entry for entry in self._entries if is_room or not entry.long), None)

    def _drop(self, entry: _Entry) -> None:
        """End a job wherever it is."""
        entry.job.cancel()
        with self._changed:
            if entry in self._entries:
                self._entries.remove(entry)

    def _loop(self) -> None:
        while True:
            with self._changed:
                while (entry := self._next()) is None and not self._closed:
                    self._changed.wait()
                if entry is None or self._closed:
                    return
                self._entries.remove(entry)
                self._running.add(entry)
            try:
                with tapping(entry.job._tap):
                    entry.call()
            except Exception as error:  # it was told; the thread goes on
                _log(error)
            finally:
                with self._changed:
                    self._running.discard(entry)
                    self._changed.notify_all()  # a long one may begin now


def _later(loop: asyncio.AbstractEventLoop, call: Callable[..., Any], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:  # the loop has ended, and everybody in it
        pass


def _log(error: Exception) -> None:
    import logging

    logging.getLogger("regard.serve").error("a request failed", exc_info=error)
