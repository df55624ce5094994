"""Files to train on: those that were sent to the server, and those in the folder that it was given."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from regard.serve.fields import Name
from regard.serve.house import House, Missing, Settings, Shared
from regard.serve.names import check_new, find, wrong_with
from regard.serve.plain import Plain

__all__ = ["data_file", "router"]

router = APIRouter(prefix="/api")

Called = Annotated[Name, Query(description="One name, without a folder.")]

_BLOCK = 2**20
_MOST_LISTED = 5000
_LEFT_AFTER = 24 * 3600.0  # seconds after which a part is no longer being written
_PART = ".part"


def data_file(settings: Settings, name: str) -> Path:
    """Find a file of data by its name: one that was sent, else one of the given folder.

    Raises:
        Missing: there is none, or it lies outside these folders.
    """
    for root in (settings.uploads, settings.data):
        with suppress(Missing):
            if root is not None and (path := find(root, name, "file")).is_file():
                return path
    raise Missing(f"there is no file {name!r} of data.")


def _listed(root: Path, folder: str) -> list[dict[str, Any]]:
    found = []
    try:
        names = sorted(entry.name for entry in os.scandir(root))
    except OSError:
        return []
    for name in names[:_MOST_LISTED]:
        with suppress(Missing, OSError):
            path = find(root, name, "file")
            if path.is_file():
                about = path.stat()
                found.append({"name": name, "bytes": about.st_size, "when": about.st_mtime, "folder": folder})
    return found


@router.get("/files", response_class=Plain)
def list_files(shared: Shared) -> Response:
    """List the files of data that a training may name."""
    settings = shared.settings
    files = _listed(settings.uploads, "uploads")
    if settings.data is not None:
        files += _listed(settings.data, "data")
    return Plain({"files": files, "most": settings.most_upload})


@router.put("/files", response_class=Plain)
async def put_file(request: Request, shared: Shared, name: Called) -> Response:
    """Keep a file of data: the body as it is. One of this name that was sent before is replaced when all is there."""
    check_new(name, "file")
    most, uploads = shared.settings.most_upload, shared.settings.uploads
    length = request.headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit() or int(length[:20]) > most:
        return _too_large(most)
    part = uploads / f".{secrets.token_hex(8)}{_PART}"
    try:
        with _begin(part) as file:
            size = await _receive(request, file, most)
            if size is not None:
                await asyncio.to_thread(_finish, file, part, uploads / name)
        return _too_large(most) if size is None else Plain({"name": name, "bytes": size})
    except ClientDisconnect:
        return Plain({"error": "the file was not sent to its end."}, 400)
    except OSError as error:
        return Plain({"error": f"the file can't be kept: {error.strerror or error}."}, 507)
    finally:  # also where the request is cancelled; after the last rename there is nothing to remove
        with suppress(OSError):
            part.unlink(missing_ok=True)


@router.delete("/files", response_class=Plain)
def delete_file(shared: Shared, name: Called) -> Response:
    """Remove a file that was sent; those of the given folder stay."""
    _delete(shared, name)
    return Plain({"name": name})


def _delete(shared: House, name: str) -> None:
    path = shared.settings.uploads / name
    if wrong_with(name) or not find(shared.settings.uploads, name, "file").is_file():
        raise Missing(f"no file {name!r} was sent.")
    try:
        path.unlink()
    except FileNotFoundError:
        raise Missing(f"no file {name!r} was sent.") from None


def _begin(part: Path) -> IO[bytes]:
    part.parent.mkdir(parents=True, exist_ok=True)
    for old in part.parent.glob(f".*{_PART}"):  # of a server that was killed
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _LEFT_AFTER:
                old.unlink()
    return part.open("xb")


async def _receive(request: Request, file: IO[bytes], most: int) -> int | None:
    """Write the body as it comes, some of it in memory at a time; give its size, None where it is too large."""
    size, waiting = 0, bytearray()
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            return None
        waiting += chunk
        if len(waiting) >= _BLOCK:
            await asyncio.to_thread(file.write, bytes(waiting))
            waiting.clear()
    await asyncio.to_thread(file.write, bytes(waiting))
    return size


def _finish(file: IO[bytes], part: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    os.replace(part, path)


def _too_large(most: int) -> Response:
    # The rest of the body is not read, so the connection can't serve another request.
    return Plain({"error": f"the file is larger than {most:,} bytes."}, 413, {"connection": "close"})
