"""The routes of writing: a text that grows token by token, with all that the model might have said instead."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from torch import Tensor

from regard.errors import ConfigError
from regard.look.places import attention_depths
from regard.serve.fields import (
    Asked,
    Beams,
    Ids,
    Language,
    Name,
    Seed,
    Share,
    Short,
    Temperature,
    Text,
    Tokens,
)
from regard.serve.house import House, Shared
from regard.serve.plain import Plain
from regard.serve.work import LONG, Job
from regard.tasks.steps import Alive, Choice, Event, Prompt, Token, Tree, next_token, write
from regard.tasks.steps_call import TOKENS, check_settings

__all__ = ["router"]

router = APIRouter(prefix="/api")

_MANY = 2_000  # tokens, each a pass of its own, from which a writing takes long
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
_LANGUAGES = ("source_language", "target_language", "max_tokens")
_SETTINGS = ("beams", "length_penalty", "temperature", "top_k", "top_p", "min_p", "seed", *_LANGUAGES)


class Message(Asked):
    """One turn of a conversation."""

    role: Annotated[Short, Field(min_length=1)]
    content: Text


class OfText(Asked):
    """What is written from, and the tokens that are chosen already."""

    model: Name
    verb: Literal["translate", "summarize", "generate", "chat"]
    text: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)] | None = None
    kept: Ids = Field(default_factory=list)
    max_tokens: Tokens | None = None
    source_language: Language | None = None
    target_language: Language | None = None

    @model_validator(mode="after")
    def _has_one(self) -> OfText:
        if (self.text is None) == (self.messages is None):
            raise ValueError("give a text, or for chat messages: one of them.")
        if self.messages is not None and self.verb != "chat":
            raise ValueError(f"{self.verb} takes one text; messages are for chat.")
        return self

    @property
    def prompt(self) -> str | list[dict[str, str]]:
        """Give the text, or the messages as the library takes them."""
        if self.messages is None:
            return self.text or ""
        return [{"role": one.role, "content": one.content} for one in self.messages]

    @property
    def is_long(self) -> bool:
        """Tell whether it may take so long that it leaves a thread to others."""
        read = len(self.text or "") + sum(len(one.content) for one in self.messages or ())
        return read > LONG or len(self.kept) > _MANY

    def check_kept(self, most: int | None) -> None:
        """Refuse more kept tokens than the text may have.

        Raises:
            ConfigError: there are more.
        """
        if most is not None and len(self.kept) > most:
            raise ConfigError(
                f"{len(self.kept)} tokens are kept, and max_tokens={most}; raise it or keep fewer."
            )


class ToWrite(OfText):
    """A text to write; what isn't given is as the model was published, or the verb's own."""

    beams: Beams = 1
    length_penalty: Annotated[float, Field(ge=-10.0, le=10.0)] | None = None
    temperature: Temperature | None = None
    top_k: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    min_p: Share | None = None
    seed: Seed | None = None
    alternatives: Annotated[int, Field(ge=0, le=20)] = 5
    attention: bool = False

    @property
    def is_long(self) -> bool:
        """Tell whether it may take so long that it leaves a thread to others."""
        return super().is_long or (self.max_tokens or 0) > _MANY


@router.post("/write", responses=_EVENTS)
async def write_text(asked: ToWrite, shared: Shared, request: Request) -> Response:
    """Write a text: "source", then for each token "token" and "text", with beams "beams" and "tree"; last "done"."""
    settings = {name: getattr(asked, name) for name in _SETTINGS}
    check_settings(asked.verb, settings)
    asked.check_kept(asked.max_tokens or (TOKENS if asked.verb == "generate" else None))
    await run_in_threadpool(_check_verb, shared, asked)

    def work(job: Job) -> None:
        parts = shared.models.open(asked.model).parts
        looks = asked.attention and bool(attention_depths(parts.config))
        found = write(
            parts, asked.verb, asked.prompt, kept=asked.kept, alternatives=asked.alternatives,
            attention=looks, tell=lambda event: _tell(job, event), check=job.check, **settings,
        )  # fmt: skip
        if found.rest:
            job.tell("text", {"text": found.rest})
        told = asdict(found)
        del told["rest"]
        job.tell("done", told)

    return shared.work.stream(work, request, long=asked.is_long)


@router.post("/next")
async def next_of_text(asked: OfText, shared: Shared, request: Request) -> Response:
    """Give the model's own log-probabilities of the next token: {size, logprobs (base64 of float32), top, never}."""
    settings = {name: getattr(asked, name) for name in _LANGUAGES}
    check_settings(asked.verb, settings)
    asked.check_kept(None if asked.verb == "generate" else asked.max_tokens)  # there it changes nothing
    await run_in_threadpool(_check_verb, shared, asked)

    def work(job: Job) -> dict[str, Any]:
        parts = shared.models.open(asked.model).parts
        found = next_token(parts, asked.verb, asked.prompt, kept=asked.kept, check=job.check, **settings)
        top = _choices(found.top)
        never = list(found.never)
        return {"size": len(found.logprobs), "logprobs": _floats(found.logprobs), "top": top, "never": never}

    return Plain(await shared.work.run(work, request, long=asked.is_long))


def _check_verb(house: House, asked: OfText) -> None:
    """Refuse what a model can't do before it is loaded."""
    info = house.models.info(asked.model)
    if asked.verb not in info.verbs:
        raise ConfigError(f"{asked.model!r} can't {asked.verb}; it can {', '.join(info.verbs)}.")


def _tell(job: Job, event: Event) -> None:
    """Send one event; the text that is held back until an end token comes before it."""
    match event:
        case Prompt():
            job.tell("source", {"tokens": [asdict(piece) for piece in event.tokens]})
        case Token():
            delta = {"text": event.delta}
            if event.delta and event.end:
                job.tell("text", delta)
            job.tell("token", _token(event))
            if event.delta and not event.end:
                job.tell("text", delta)
        case Alive():
            names = ("node", "parent", "id", "text", "score")
            alive = [{name: getattr(node, name) for name in names} for node in event.nodes]
            job.tell("beams", {"step": event.step, "alive": alive})
        case Tree():
            nodes = [asdict(node) for node in event.nodes]
            job.tell("tree", {"nodes": nodes, "best": list(event.best)})


def _token(token: Token) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": token.id, "text": token.text, "logprob": token.logprob, "kept": token.kept, "end": token.end,
        "alternatives": _choices(token.alternatives),
    }  # fmt: skip
    if token.seen is not None:
        _, heads, columns = token.seen.shape
        told["attention"] = {
            "layers": list(token.layers), "heads": heads, "columns": columns, "first": token.first,
            "values": _floats(token.seen),
        }  # fmt: skip
    return told


def _choices(choices: Sequence[Choice]) -> list[dict[str, Any]]:
    return [asdict(one) for one in choices]


def _floats(values: Tensor) -> str:
    """Write numbers row by row as little-endian float32, in base64."""
    return base64.b64encode(values.float().cpu().numpy().astype("<f4").tobytes()).decode()
