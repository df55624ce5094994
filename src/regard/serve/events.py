"""Server-sent events: how an answer is told piece by piece (WHATWG HTML, 9.2)."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["EventResponse", "encode", "finite", "left"]

_PING = 15.0  # seconds of silence after which a line of comment keeps the connection open


def finite(value: Any) -> Any:
    """Put None, which JSON has, for numbers that it hasn't."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def encode(name: str, data: Mapping[str, Any]) -> bytes:
    """Write one event; JSON escapes line ends and lone surrogates, so that it is two lines of ASCII."""
    return f"event: {name}\ndata: {json.dumps(finite(data))}\n\n".encode()


async def left(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class EventResponse(Response):
    """Send events as they come, until they end or the client leaves; `on_end` is called either way."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[bytes], on_end: Callable[[], None] = lambda: None, status_code: int = 200
    ) -> None:
        super().__init__(
            status_code=status_code, headers={"cache-control": "no-store", "x-accel-buffering": "no"}
        )
        del self.headers["content-length"]
        self.events, self.on_end = events, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        except OSError:  # it left while something was sent
            pass
        finally:
            self.on_end()
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        coming = asyncio.ensure_future(anext(self.events, None))
        try:
            while True:
                done, _ = await asyncio.wait({coming}, timeout=_PING)
                if not done:
                    await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
                    continue
                event = coming.result()
                if event is None:
                    break
                await send({"type": "http.response.body", "body": event, "more_body": True})
                coming = asyncio.ensure_future(anext(self.events, None))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
