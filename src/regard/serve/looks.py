"""The routes of looks: what a model attends to, kept here and read piece by piece.

The pass itself is work of the queue. What a page then asks while somebody points and pans is small and bounded, and is
answered beside that work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse
from torch import Tensor

from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.look.draw.payload import meta, payload
from regard.look.intervene import off
from regard.look.places import attention_depths, mean_values
from regard.look.reading import Look
from regard.model import Model
from regard.nn.taps import tapping
from regard.serve import looks_export as exporting
from regard.serve.files import data_file
from regard.serve.house import House, Shared
from regard.serve.looks_asked import (
    OfColumn,
    OfFile,
    OfHead,
    OfLook,
    OfRow,
    OfWeight,
    OfWindow,
    OfWord,
    ToChange,
    ToFollow,
    ToLook,
)
from regard.serve.looks_reading import Span, check_place, links_to, numbers_of, roles_of, window_of
from regard.serve.looks_store import Looking
from regard.serve.plain import Plain
from regard.serve.work import LONG, Job
from regard.tasks.looking import capture_reading, read
from regard.tasks.looking_checkpoints import looks as looks_of_run
from regard.tasks.looking_effects import effect

__all__ = ["router"]

router = APIRouter(prefix="/api")

_VALUES = 8192  # tokens up to which values are kept too, for the proof
_CHARACTERS = 4_000_000  # of a file
_BUDGET = 2**30  # bytes of a look in memory; what is beyond lies in a file
_Told = dict[int | str, dict[str, Any]]
_BINARY: _Told = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
_FILE: _Told = {200: {"content": {kind: {} for kind in exporting.FORMATS.values()}}}
_EVENTS: _Told = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


@router.post("/look", responses=_EVENTS)
async def look(asked: ToLook, shared: Shared, room: Looking, request: Request) -> Response:
    """Look at a text: "progress" {done, total, what}, then "done" {id, tokens, whole}."""

    def work(job: Job) -> None:
        job.tell("done", _kept(room, _look(shared.models.open(asked.model), wanted, job)))

    await run_in_threadpool(shared.models.folder, asked.model)
    wanted = await run_in_threadpool(_with_text, asked, shared)
    return shared.work.stream(work, request, long=len(wanted.text) > LONG)


def _with_text(asked: ToLook, shared: House) -> ToLook:
    """Put a file's text where it is looked at.

    Raises:
        Missing: there is no such file.
        ConfigError: there is neither or both, or the file is no text or too long.
    """
    if asked.file is None:
        if not asked.text:
            raise ConfigError("there is no text to look at; give one.")
        return asked
    name = asked.file
    if asked.text:
        raise ConfigError("give a text, or a file of it, and not both.")
    path = data_file(shared.settings, name)
    try:
        text = path.read_bytes().decode("utf-8-sig") if path.stat().st_size <= 4 * _CHARACTERS else None
    except UnicodeDecodeError:
        raise ConfigError(f"{name!r} is no text in UTF-8.") from None
    if text is None or len(text) > _CHARACTERS:
        raise ConfigError(f"{name!r} holds more than {_CHARACTERS:,} characters; send a part of it.")
    return asked.model_copy(update={"text": text})


def _look(model: Model, asked: ToLook, job: Job) -> Look:
    steps = _Steps(job, model.config, asked.max_tokens or 0)
    with tapping(steps):
        reading = read(
            model.parts, asked.text, asked.target, pair=asked.pair, max_tokens=asked.max_tokens,
            target_tokenizer=model.target_tokenizer, source_language=asked.source_language,
            target_language=asked.target_language,
        )  # fmt: skip
        steps.read({name: len(side.ids) for name, side in reading.sides.items()})
        longest = max(len(side.ids) for side in reading.sides.values())
        found = capture_reading(
            model.parts, reading, values=longest <= _VALUES, budget=_BUDGET, model=asked.model
        )
    for done, layer in enumerate(
        found.layers.values(), 1
    ):  # the proof, which a page shows beside the weights
        for head in range(layer.heads):
            layer.error_of(head)
            job.check()
        if longest > _VALUES:
            job.tell("progress", {"done": done, "total": len(found.layers), "what": "checking"})
    return found


class _Steps:
    """Count what passes through a model's attentions, and tell how far it is: while it writes, then while it reads."""

    def __init__(self, job: Job, config: ModelConfig, tokens: int) -> None:
        self.job, self.tokens, self.heads = job, tokens, config.num_heads
        self.layers = sum(attention_depths(config).values())
        self.done, self.part, self.lengths = 0, 0.0, dict[str, int]()

    def __call__(self, name: str, value: Tensor) -> Tensor:
        kind, what = name.partition(".")[0], name.rpartition(".")[2]
        if not self.lengths:
            if name == "decoder.0.attention":
                self.done += 1
                self._tell(self.done, self.tokens, "writing")
        elif what == "attention":
            self.done, self.part = self.done + 1, 0.0
            self._tell(self.done, self.layers, "reading")
        elif what == "part":
            rows = self.lengths.get("text") or self.lengths["source" if kind == "encoder" else "target"]
            self.part += value.shape[1] * value.shape[2] / (self.heads * rows)
            self._tell(self.done + min(self.part, 1.0), self.layers, "reading")
        return value

    def read(self, lengths: dict[str, int]) -> None:
        """Begin with the pass that is kept, of texts of so many tokens."""
        self.done, self.lengths = 0, lengths
        self._tell(0, self.layers, "reading")

    def _tell(self, done: float, total: int, what: str) -> None:
        self.job.tell("progress", {"done": done, "total": total, "what": what})


def _kept(room: Looking, found: Look) -> dict[str, Any]:
    name = room.looks.add(found)
    tokens = {side.name: len(side.tokens) for side in found.sides.values()}
    return {"id": name, "tokens": tokens, "whole": room.looks.get(name).whole}


@router.get("/looks/payload")
async def whole(asked: Annotated[OfLook, Query()], room: Looking, request: Request) -> Response:
    """Give all of a small look, as the page's component takes it."""
    kept = room.looks.get(asked.id)
    if not kept.whole:
        raise ConfigError("this look is too large to be sent at once; ask for its windows.")
    return await room.quick.run(lambda: Plain(payload(kept.look, pyramids=False)), request, slow=True)


@router.get("/looks/meta")
async def about(asked: Annotated[OfLook, Query()], room: Looking, request: Request) -> Response:
    """Give the texts and layers of a look."""
    kept = room.looks.get(asked.id)
    return await room.quick.run(lambda: Plain(meta(kept.look)), request, slow=True)


@router.get("/looks/row", responses=_BINARY)
async def row(asked: Annotated[OfRow, Query()], room: Looking, request: Request) -> Response:
    """Give what a token gives to each: numbers of single precision, lower byte first."""
    layer, head = room.looks.get(asked.id).head(asked.layer, asked.head)
    check_place(layer.shape, row=asked.row)
    return await room.quick.run(lambda: _binary(layer.row(head, asked.row)), request)


@router.get("/looks/column", responses=_BINARY)
async def column(asked: Annotated[OfColumn, Query()], room: Looking, request: Request) -> Response:
    """Give what a token gets from each."""
    layer, head = room.looks.get(asked.id).head(asked.layer, asked.head)
    check_place(layer.shape, column=asked.column)
    return await room.quick.run(lambda: _binary(layer.column(head, asked.column)), request)


@router.get("/looks/numbers")
async def numbers(asked: Annotated[OfWeight, Query()], room: Looking, request: Request) -> Response:
    """Give everything that makes one weight."""
    kept = room.looks.get(asked.id)
    return await room.quick.run(
        lambda: Plain(numbers_of(kept, asked.layer, asked.head, asked.row, asked.column)), request
    )


@router.get("/looks/window", responses=_BINARY)
async def window(asked: Annotated[OfWindow, Query()], room: Looking, request: Request) -> Response:
    """Give a window row by row; the headers say how many rows and columns of cells, and whether they're exact.

    What lies beyond the matrix is left out, and rows that would be too many. An exact window that would take long is
    sampled all the same until the head's pyramid is there.
    """
    kept = room.looks.get(asked.id)
    span = Span(
        kept.tiles(asked.layer, asked.head), (asked.row0, asked.row1), (asked.column0, asked.column1), asked.cell,
        sampled=asked.sampled,
    )  # fmt: skip

    def answer() -> Response:
        values, exact = window_of(span, asked.kind)
        return _binary(
            values,
            {"X-Rows": str(values.shape[0]), "X-Columns": str(values.shape[1]), "X-Exact": str(int(exact))},
        )

    return await room.quick.run(answer, request, slow=span.slow)


@router.post("/looks/pyramid", responses=_EVENTS)
async def pyramid(asked: OfHead, shared: Shared, room: Looking, request: Request) -> Response:
    """Make every coarse window of a head exact: "progress" {done, total} in rows, then "done".

    What was left before the end goes on where it stood.
    """
    made = room.looks.get(asked.id).tiles(asked.layer, asked.head)

    def work(job: Job) -> None:
        def told(done: int, total: int) -> None:
            if not job.cancelled:
                job.tell("progress", {"done": done, "total": total})

        made.build(progress=told, stop=lambda: job.cancelled)
        room.looks.trim()
        job.tell("done", {})

    return shared.work.stream(work, request, long=True)


@router.get("/looks/to")
async def to(asked: Annotated[OfWord, Query()], shared: Shared, room: Looking, request: Request) -> Response:
    """List who attends most to a word."""
    kept = room.looks.get(asked.id)
    found = await shared.work.run(
        lambda job: links_to(kept, asked.word, side=asked.side, top=asked.top, check=job.check),
        request,
        long=not kept.whole,
    )
    return Plain({"links": found})


@router.get("/looks/roles")
async def heads(
    asked: Annotated[OfLook, Query()], shared: Shared, room: Looking, request: Request
) -> Response:
    """Tell what every head does."""
    kept = room.looks.get(asked.id)
    return Plain(await shared.work.run(lambda job: roles_of(kept, job.check), request, long=not kept.whole))


@router.get("/looks/export", responses=_FILE)
async def export(
    asked: Annotated[OfFile, Query()], shared: Shared, room: Looking, request: Request
) -> Response:
    """Give a look as a file."""
    kept, wanted = room.looks.get(asked.id), asked.export()
    wanted.check()
    headers = {"content-disposition": f'attachment; filename="{exporting.file_name(kept, wanted)}"'}
    media = exporting.FORMATS[wanted.format]
    if wanted.format in ("html", "svg", "png"):

        def work(job: Job) -> bytes:
            made = exporting.drawn(kept, wanted, stop=lambda: job.cancelled)
            room.looks.trim()
            return made

        drawn = await shared.work.run(work, request, long=not kept.whole)
        return Response(drawn, media_type=media, headers=headers)
    layer, head = None, wanted.head
    if wanted.layer is not None and head is not None:
        layer, head = kept.head(wanted.layer, head)
        exporting.check_table(layer)
    if wanted.format == "json":
        parts = exporting.json_parts(kept.look, layer, head)
    else:
        assert layer is not None and head is not None, "checked above"
        parts = exporting.csv_parts(kept.look, layer, head)
    return StreamingResponse(_beside(parts, room), media_type=media, headers=headers)


async def _beside(parts: Iterator[bytes], room: Looking) -> AsyncIterator[bytes]:
    """Compute the parts of a file one by one, beside other questions."""
    while part := await room.quick.run(lambda: next(parts, b""), slow=True):
        yield part


def _binary(values: Tensor, headers: dict[str, str] | None = None) -> Response:
    data = values.contiguous().numpy().astype("<f4").tobytes()
    return Response(data, media_type="application/octet-stream", headers=headers)


@router.post("/effect")
async def change(asked: ToChange, shared: Shared, request: Request) -> Response:
    """Say what switching heads off does to what a model says of a text."""
    await run_in_threadpool(shared.models.folder, asked.model)
    return Plain(await shared.work.run(lambda job: _effect(shared.models.open(asked.model), asked), request))


def _effect(model: Model, asked: ToChange) -> dict[str, Any]:
    reading = read(
        model.parts, asked.text, asked.target, pair=asked.pair, target_tokenizer=model.target_tokenizer,
        source_language=asked.source_language, target_language=asked.target_language,
    )  # fmt: skip
    names = list(dict.fromkeys(asked.heads))
    means = mean_values(model, [reading], names) if asked.how == "mean" else None
    found = effect(
        model.parts, [reading], [off(*names, how=asked.how, means=means)], max_tokens=asked.max_tokens,
        target_tokenizer=model.target_tokenizer, source_language=asked.source_language,
        target_language=asked.target_language,
    )  # fmt: skip
    tokens = [
        {"token": one.token, "text": one.text, "kl": one.kl, "before": one.before, "after": one.after}
        for one in found.tokens
    ]
    return {
        "changes": found.changes, "kl": found.kl, "changed": found.changed, "loss_before": found.loss_before,
        "loss_after": found.loss_after, "tokens": tokens, "texts": found.texts, "how": found.how,
    }  # fmt: skip


@router.post("/run/looks", responses=_EVENTS)
async def follow(asked: ToFollow, shared: Shared, room: Looking, request: Request) -> Response:
    """Look at a text with every checkpoint that a run has kept: "look" {step, id, …} from the earliest, then "done"."""
    folder = await run_in_threadpool(shared.models.folder, asked.name)

    def work(job: Job) -> None:
        more = {
            "source_language": asked.source_language,
            "target_language": asked.target_language,
            "pair": asked.pair,
        }
        for one in looks_of_run(folder, asked.text, asked.target, budget=_BUDGET, **more):
            job.tell("look", {"step": one.step, **_kept(room, one.look)})
        job.tell("done", {})

    return shared.work.stream(work, request, long=True)
