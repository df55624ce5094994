"""The server: what it is made of, and how an error is told.

guard ─> routes ─> work (queue, threads) ─> the library
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

import regard
from regard.errors import RegardError
from regard.serve import files as sent
from regard.serve import lab, looks, reading, runs, saved, writing
from regard.serve.guard import Guard
from regard.serve.house import House, Missing, Settings, Unkept
from regard.serve.models import Models
from regard.serve.sentences import Sentences, sentences_of
from regard.serve.store import Store
from regard.serve.work import Busy, Left, Work

__all__ = ["make_app", "page_folder"]

_ROUTERS = (saved.router, looks.router, writing.router, reading.router, runs.router, lab.router, sent.router)
_LEFT = 499  # nobody reads it: the client has gone


def page_folder() -> Path:
    """Give where the built front end lies."""
    return Path(str(files("regard.serve"))) / "page"


def make_app(settings: Settings) -> FastAPI:
    """Make the server's application; its threads and its file begin and end with it.

    Raises:
        DataError: its folder can't be used.
    """
    say = sentences_of(settings)
    house = House(
        settings,
        Models(settings.runs, settings.models, device=settings.device, most=settings.most_models),
        Work(workers=settings.workers, waiting=settings.waiting, say=say),
        Store(settings.home / "page.sqlite"),
        say,
    )

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        yield
        house.work.close()
        house.store.close()

    app = FastAPI(
        title="Regard", version=regard.__version__, lifespan=living, docs_url=None, redoc_url=None,
        openapi_url="/openapi.json", description="What the page of `regard serve` asks its server.",
        responses={422: {"description": "What was asked can't be.", "content": _PROBLEM}},
    )  # fmt: skip
    app.state.house = house
    _tell_errors(app, say)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Say that the server is there, however busy it is."""
        return {"ok": True, "version": regard.__version__, "busy": len(house.work)}

    for router in _ROUTERS:
        app.include_router(router)
    app.mount("/", _Page(page_folder()))
    app.add_middleware(Guard, host=settings.host, hosts=settings.hosts, token=settings.token)
    return app


_PROBLEM: dict[str, Any] = {
    "application/json": {
        "schema": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    }
}


def _tell_errors(app: FastAPI, say: Sentences) -> None:
    """Answer every error with one sentence."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return _problem(422, "; ".join(map(_invalid, error.errors()[:3])))

    @app.exception_handler(RegardError)
    async def refused(request: Request, error: RegardError) -> Response:
        return _problem(422, say(error))

    @app.exception_handler(Missing)
    async def missing(request: Request, error: Missing) -> Response:
        return _problem(404, say(error))

    @app.exception_handler(Unkept)
    async def unkept(request: Request, error: Unkept) -> Response:
        return _problem(507, say(error))

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> Response:
        seconds = str(error.retry_after)
        return _problem(503, "the server is busy; try again soon.", {"retry-after": seconds})

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400 and (why := _unreadable(error.__cause__)):
            return _problem(422, why)
        return _problem(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Left)
    async def left(request: Request, error: Left) -> Response:
        return _problem(_LEFT, "the client has left.")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _problem(500, say(error))


def _problem(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": text}, status, headers)


def _invalid(error: Any) -> str:
    """Say what is wrong with one field, without what was given: that may be long or private."""
    place = ".".join(str(part) for part in error["loc"] if part not in ("body", "query"))
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _unreadable(cause: BaseException | None) -> str:
    """Say why a body could not be taken for JSON; nothing where that was not the reason."""
    if isinstance(cause, RecursionError):
        return "the body's lists or objects lie too deep in each other."
    if isinstance(cause, UnicodeDecodeError):
        return "the body is no text in UTF-8."
    if isinstance(cause, ValueError):  # Python reads so many digits and no more
        return "a whole number in the body has too many digits."
    return ""


class _Page:
    """Give the front end's files: compressed, kept by the browser where their names hold their content's hash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.app = GZipMiddleware(StaticFiles(directory=folder, html=True, check_dir=False), minimum_size=600)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Answer a request for a file."""
        if not (self.folder / "index.html").is_file():
            missing = _problem(503, "the page has not been built; run `make web` in the project's folder.")
            await missing(scope, receive, send)
            return
        kept = "/assets/" in scope["path"]

        async def dated(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                value = b"public, max-age=31536000, immutable" if kept else b"no-cache"
                message["headers"] = [*message.get("headers", []), (b"cache-control", value)]
            await send(message)

        await self.app(scope, receive, dated)
