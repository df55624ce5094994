"""The routes of the lab: what was measured about attention, on this machine where somebody did, else by the project."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from regard.lab.kept import COMMITTED, read_result
from regard.serve.house import House, Missing, Shared
from regard.serve.plain import Plain

__all__ = ["router"]

router = APIRouter(prefix="/api/lab")

Claim = Annotated[str, Path(pattern=r"^L([1-9]|1[0-4])$", description="L1 to L14.")]

_ALL = tuple(f"L{number}" for number in range(1, 15))
_SHOWN = (
    "id", "title", "said", "question", "verdict", "status", "effect", "effect_of", "interval", "interval_of", "seeds",
    "command", "size", "method", "refuted_by", "fair", "tuning", "repeats", "figure", "machine", "threads",
)  # fmt: skip


def _folders(house: House) -> list[Any]:
    """Give where results lie: those of this machine first, as `regard lab run` leaves them."""
    return [house.settings.runs / "lab", COMMITTED]


def _find(house: House, name: str) -> tuple[Any, dict[str, Any]]:
    for folder in _folders(house):
        if (result := read_result(name, folder)) is not None:
            return folder, result
    raise Missing(f"{name} is not measured yet: regard lab run {name}.")


@router.get("", response_class=Plain)
def claims(shared: Shared) -> Response:
    """List the claims that were measured, each with its question and verdict."""
    found = []
    for name in _ALL:
        try:
            folder, result = _find(shared, name)
        except Missing:
            continue
        short = {key: result[key] for key in ("id", "title", "question", "verdict", "status")}
        found.append({**short, "own": folder != COMMITTED})
    return Plain({"claims": found})


@router.get("/{claim}", response_class=Plain)
def claim(shared: Shared, claim: Claim) -> Response:
    """Give a claim's result: how it was measured, what came out, and the numbers of its figure."""
    folder, result = _find(shared, claim)
    return Plain({**{key: result.get(key) for key in _SHOWN}, "own": folder != COMMITTED})


@router.get("/{claim}/figure.svg")
def figure(shared: Shared, claim: Claim) -> Response:
    """Give a claim's figure, which suits a light and a dark page."""
    folder, _ = _find(shared, claim)
    try:
        drawn = (folder / claim / "figure.svg").read_bytes()
    except OSError:
        raise Missing(f"the figure of {claim} isn't there; regard lab run {claim} draws it again.") from None
    return Response(drawn, media_type="image/svg+xml", headers={"cache-control": "no-cache"})
