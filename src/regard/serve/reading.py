"""The routes of the verbs that read: classify, tag, fill, embed, answer and score.

Places in a text are characters as Python counts them, code points of the text as it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from regard.errors import ConfigError
from regard.model import Model
from regard.serve.fields import Asked, Count, Name, Short, Text
from regard.serve.files import data_file
from regard.serve.house import House, Shared
from regard.serve.plain import Plain
from regard.serve.reading_explained import explain
from regard.serve.reading_map import embed_file, embed_texts, nearest
from regard.serve.work import LONG, Job
from regard.tasks.fill import find_masks

__all__ = ["router"]

router = APIRouter(prefix="/api")

Top = Annotated[int, Field(ge=1, le=100)]


class Classify(Asked):
    """Ask what a text is; `labels` of one's own need a model that knows entailment."""

    model: Name
    text: Text
    pair: Text | None = None
    labels: Annotated[list[Short], Field(min_length=1, max_length=100)] | None = None
    template: Short | None = None
    multi_label: bool = False
    windows: bool = False
    explain: bool = False
    label: Short | None = Field(None, description="The label to explain; none: the likeliest.")


class Tag(Asked):
    """Ask for the names in a text, or the parts of speech."""

    model: Name
    text: Text
    windows: bool = False


class Fill(Asked):
    """Ask what may stand in a text's masks."""

    model: Name
    text: Text
    top: Top = 5
    windows: bool = False


class Embed(Asked):
    """Ask for a map of texts, or of a file's lines; and for those that are nearest to a query."""

    model: Name
    texts: Annotated[list[Text], Field(min_length=1, max_length=2000)] | None = None
    file: Name | None = None
    query: Text | None = None
    top: Count = 10


class Question(Asked):
    """Ask a question about a passage."""

    model: Name
    text: Text
    question: Short
    top: Top = 5
    allow_none: bool = False
    windows: bool = False


class Score(Asked):
    """Ask how likely a text is; an encoder-decoder needs the source that it was made from."""

    model: Name
    text: Text
    source: Text | None = None
    windows: bool = False


_Asked = Classify | Tag | Fill | Embed | Question | Score


async def _answered(
    shared: House, request: Request, asked: _Asked, call: Callable[[Job, Model], dict[str, Any]]
) -> Response:
    """Do a job with a model, and answer with what it gives."""

    def work(job: Job) -> Response:
        job.check()
        found = shared.models.open(asked.model)
        job.check()
        return Plain(call(job, found))

    is_long = (isinstance(asked, Embed) and asked.file is not None) or len(asked.model_dump_json()) > LONG
    return await shared.work.run(work, request, long=is_long)


@router.post("/classify", response_class=Plain)
async def classify(shared: Shared, request: Request, asked: Classify) -> Response:
    """Give the probability of each label, and what each token did for one of them."""

    def call(job: Job, model: Model) -> dict[str, Any]:
        own: dict[str, Any] = {"labels": asked.labels} if asked.labels else {}
        own |= {"template": asked.template} if asked.template is not None else {}
        own |= {"multi_label": True} if asked.multi_label else {}
        found = model.classify(asked.text, pair=asked.pair, windows=asked.windows, **own)
        answer = {
            "labels": [{"label": one.label, "probability": one.score} for one in found.scores],
            "chosen": list(found.chosen), "tokens": found.tokens, "windows": found.windows,
            "is_number": len(model.config.labels) == 1, "parts": None, "occlusion": None,
        }  # fmt: skip
        if not asked.explain:
            if asked.label is not None:
                raise ConfigError("label says what is explained; ask for explain too, or leave it out.")
            return answer
        wanted = found.label if asked.label is None else asked.label
        return answer | explain(
            model, asked.text, asked.pair, wanted, [one.label for one in found.scores], is_own=bool(asked.labels),
            template=asked.template, windows=found.windows,
        )  # fmt: skip

    return await _answered(shared, request, asked, call)


@router.post("/tag", response_class=Plain)
async def tag(shared: Shared, request: Request, asked: Tag) -> Response:
    """Find names in a text, or parts of speech, with their places."""

    def call(job: Job, model: Model) -> dict[str, Any]:
        found = model.tag(asked.text, windows=asked.windows)
        entities = [
            {"label": one.label, "text": one.text, "start": one.start, "end": one.end, "score": one.score}
            for one in found.entities
        ]
        return {"entities": entities, "tokens": found.tokens, "windows": found.windows}

    return await _answered(shared, request, asked, call)


@router.post("/fill", response_class=Plain)
async def fill(shared: Shared, request: Request, asked: Fill) -> Response:
    """Find what may stand in a text's masks: [MASK], <mask> or ___."""

    def call(job: Job, model: Model) -> dict[str, Any]:
        found = model.fill(asked.text, top=asked.top, windows=asked.windows)
        masks = [
            {
                "start": start, "end": end,
                "candidates": [{"text": one.token, "probability": one.probability} for one in candidates],
            }
            for (start, end), candidates in zip(find_masks(model.parts, asked.text), found.masks, strict=True)
        ]  # fmt: skip
        return {"masks": masks, "text": found.text, "tokens": found.tokens, "windows": found.windows}

    return await _answered(shared, request, asked, call)


@router.post("/embed", response_class=Plain)
async def embed(shared: Shared, request: Request, asked: Embed) -> Response:
    """Lay texts out on a map by their vectors, and find the nearest to a query."""
    if (asked.texts is None) == (asked.file is None):
        raise ConfigError("give texts, or a file of them, and not both.")
    path = None if asked.file is None else data_file(shared.settings, asked.file)

    def call(job: Job, model: Model) -> dict[str, Any]:
        if path is not None:
            laid = embed_file(job, model, path)
        else:
            laid = embed_texts(job, model, asked.texts or [])
        found = [] if asked.query is None else nearest(model, laid, asked.query, asked.top)
        return {"points": laid.points(), "nearest": found, "how": laid.how, "left_out": laid.left_out}

    return await _answered(shared, request, asked, call)


@router.post("/answer", response_class=Plain)
async def answer(shared: Shared, request: Request, asked: Question) -> Response:
    """Find the words of a passage that answer a question."""

    def call(job: Job, model: Model) -> dict[str, Any]:
        found = model.answer(
            asked.text, question=asked.question, top=asked.top, allow_none=asked.allow_none, windows=asked.windows
        )  # fmt: skip
        candidates = [
            {"text": one.text, "start": one.start, "end": one.end, "probability": one.probability}
            for one in found.candidates
        ]
        best = {"text": found.text, "start": found.start, "end": found.end, "probability": found.probability}
        return {**best, "candidates": candidates, "tokens": found.tokens, "windows": found.windows}

    return await _answered(shared, request, asked, call)


@router.post("/score", response_class=Plain)
async def score(shared: Shared, request: Request, asked: Score) -> Response:
    """Say how likely a text is, token by token; `nats` is its surprise in all, minus the log-probability."""

    def call(job: Job, model: Model) -> dict[str, Any]:
        given = {} if asked.source is None else {"source": asked.source}
        found = model.score(asked.text, windows=asked.windows, **given)
        tokens = [
            {"text": asked.text[one.start : one.end] or one.token, "start": one.start, "end": one.end,
             "logprob": one.logprob}
            for one in found.token_scores
        ]  # fmt: skip
        return {
            "nats": -found.logprob, "perplexity": found.perplexity, "bits_per_character": found.bits_per_character,
            "scored": found.scored, "way": found.way, "tokens": tokens, "windows": found.windows,
        }  # fmt: skip

    return await _answered(shared, request, asked, call)
