"""The routes of what the page remembers: history, saved views, settings; and the list of models.

A file may be slow or locked, so each runs in a thread and none on the server's loop.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from regard.serve.fields import Asked, Share, Short
from regard.serve.house import Missing, Shared

router = APIRouter(prefix="/api")

Kind = Annotated[str, Field(pattern="^[a-z]{1,20}$")]
Place = Annotated[str, Field(max_length=100_000)]
Identity = Annotated[int | None, Query(alias="id", ge=1, le=2**62)]


class Remembered(Asked):
    """A line of the history."""

    kind: Kind
    title: Short
    place: Place


class View(Asked):
    """A view to save."""

    title: Annotated[Short, Field(min_length=1)]
    place: Place


class Changes(Asked):
    """Settings to change; null goes back to the usual one."""

    language: Literal["en", "de"] | None = None
    theme: Literal["auto", "light", "dark"] | None = None
    alternatives: Annotated[int, Field(ge=0, le=20)] | None = None
    words: bool | None = None
    hide_special: bool | None = None
    temperature: Share | None = None


@router.get("/models")
def models(shared: Shared) -> dict[str, Any]:
    """List the models that can be chosen, those named at the start first, then runs from the newest."""
    found = shared.models.names()
    return {"models": [one.as_json() for one in found], "default": found[0].name if found else None}


@router.get("/history")
def history(
    shared: Shared, kind: Kind | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> dict[str, Any]:
    """List what was done, the newest first."""
    return {"items": shared.store.history(kind=kind, limit=limit)}


@router.post("/history")
def remember(asked: Remembered, shared: Shared) -> dict[str, int]:
    """Note what was done."""
    return {"id": shared.store.add_history(asked.kind, asked.title, asked.place)}


@router.delete("/history")
def forget(shared: Shared, number: Identity = None) -> dict[str, int]:
    """Forget one line of the history, or all of it."""
    return {"removed": _some(shared.store.remove_history(number), number)}


@router.get("/views")
def views(shared: Shared) -> dict[str, Any]:
    """List the saved views, the newest first."""
    return {"items": shared.store.views()}


@router.post("/views")
def save_view(asked: View, shared: Shared) -> dict[str, int]:
    """Save a view."""
    return {"id": shared.store.add_view(asked.title, asked.place)}


@router.delete("/views")
def remove_view(shared: Shared, number: Identity = None) -> dict[str, int]:
    """Forget one saved view, or all."""
    return {"removed": _some(shared.store.remove_view(number), number)}


@router.get("/settings")
def settings(shared: Shared) -> dict[str, Any]:
    """Give the settings that were changed."""
    return shared.store.settings()


@router.put("/settings")
def change(asked: Changes, shared: Shared) -> dict[str, Any]:
    """Change settings."""
    return shared.store.set(asked.model_dump(exclude_unset=True))


def _some(removed: int, number: int | None) -> int:
    if number is not None and not removed:
        raise Missing(f"there is no line {number}.")
    return removed
