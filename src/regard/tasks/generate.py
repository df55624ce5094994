"""Generate: continue a text, token by token."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from regard.config import Kind, ModelConfig
from regard.data.batches import Batches
from regard.data.objectives import Generate
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError, suggest
from regard.generate.config import NO_LIMIT, Hypothesis, SearchConfig, check_count
from regard.generate.constraints import Trie
from regard.generate.logits import Transform, logit_bias
from regard.generate.speculate import Drafter, Lookup, ModelDraft
from regard.tasks.base import (
    DataSize,
    Evaluation,
    Parts,
    Stop,
    Stores,
    Suit,
    Task,
    Values,
    encode_running_text,
    marks,
    text_store,
)  # fmt: skip
from regard.tasks.held_out import held_out_loss
from regard.tasks.translate import Candidate
from regard.tasks.verbs import check_verb, ends
from regard.tasks.writing import Row, Way, Writer, groups, opened, write_window

TEMPERATURE = 0.8
"""Of samples, where neither the user nor the model says how."""


@dataclass(frozen=True)
class Generation:
    """Hold one continuation.

    Attributes:
        text: what was written, without the prompt and without the stop string.
        prompt: what it continues.
        score: log-probability of the new tokens in nats, before temperature and filters.
        prompt_tokens: how many tokens the prompt took.
        tokens: how many tokens were written.
        finished: True where the end token or a stop string ended it, False where the limit did.
        windows: 1, or more where the text outgrew the context and went on from its last half.
        candidates: the n best texts where several were asked for, the first among them; else none.
        ids: the tokens that were written, without an end token; a stop string's may be among them.
    """

    text: str
    prompt: str
    score: float
    prompt_tokens: int
    tokens: int
    finished: bool
    windows: int = 1
    candidates: tuple[Candidate, ...] = ()
    ids: tuple[int, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.prompt + self.text


class GenerateTask(Task):
    """Learn to predict each next token of running text."""

    name: ClassVar[str] = "generate"
    help: ClassVar[str] = "the next token of running text"
    fields: ClassVar[tuple[str, ...]] = ("text",)
    kinds: ClassVar[tuple[Kind, ...]] = ("decoder",)
    metric: ClassVar[str] = "nats"
    higher_is_better: ClassVar[bool] = False
    joins_documents: ClassVar[bool] = True
    by_time: ClassVar[dict[str, Any]] = {"lr": 1e-2, "batch_tokens": 2048}
    quick_tokens: ClassVar[int] = 131_072

    def suit(self, size: DataSize) -> Suit:
        """Choose by the number of characters; the figures come from the experiments in docs/log.md."""
        small, medium = size.characters < 5_000_000, size.characters < 100_000_000
        name = "generate-tiny" if small else "generate-small" if medium else "generate-medium"
        batch_tokens = 2048 if small else 8192
        return Suit(
            model=name,
            vocab_size=4000 if small else 8000 if medium else 16_000,
            model_settings={"dropout": 0.1 if small else 0.0},
            training={
                "epochs": size.epochs(10 if small else 4 if medium else 1, batch_tokens),
                "batch_tokens": batch_tokens,
                "optimizer": "muon", "lr": 1e-2 if small else 4e-3, "warmup": 20 if small else 200,
                "schedule": "cosine",
                "beta2": 0.99, "weight_decay": 0.1,
            },
        )  # fmt: skip

    def encode(
        self, rows: Iterable[Values], tokenizer: Tokenizer, config: ModelConfig, folder: Path
    ) -> Stores:
        """Write the text, an end token after each document."""
        return encode_running_text(rows, tokenizer, config, folder, end=config.eos_id)

    def objective(self, stores: Stores, tokenizer: Tokenizer, config: ModelConfig, *, seed: int) -> Any:
        """Give windows of one context over a stream, or packed documents that don't see each other."""
        return _objective(stores, tokenizer, config, random_phase=True)

    def evaluate(
        self, parts: Parts, rows: Sequence[Values], stores: Stores, *, quick: bool, should_stop: Stop = lambda: False,
        lowercase: bool = False, beams: int = 1,
    ) -> Evaluation:  # fmt: skip
        """Give the loss in nats a token, perplexity, and bits a byte of the original text."""
        examples = _objective(stores, parts.tokenizer, parts.config, random_phase=False)
        return evaluate_likelihood(parts, examples, stores, rows, quick=quick, should_stop=should_stop)


def _objective(stores: Stores, tokenizer: Tokenizer, config: ModelConfig, *, random_phase: bool) -> Generate:
    packed = "documents" in stores
    # In a stream too, what stands before a text is an end token, unless the tokenizer has a token for it.
    first = marks(tokenizer, config)[0] if tokenizer.frames else None
    return Generate(
        text_store(stores), context=config.context, pad=config.pad_id or 0, packed=packed,
        bos=None if not packed else config.eos_id if first is None else first,
        random_phase=random_phase,
    )  # fmt: skip


def evaluate_likelihood(
    parts: Parts,
    examples: Any,
    stores: Stores,
    rows: Sequence[Values],
    *,
    quick: bool,
    should_stop: Stop,
    tokens: int = 16_384,
) -> Evaluation:
    """Average a decoder's negative log-likelihood over held-out text."""
    batches = Batches(examples, tokens_per_batch=tokens, shuffle=False)
    most = 8 if quick else None
    nats = held_out_loss(parts.module, batches, most=most, should_stop=should_stop)["nll"]
    metrics = {"nats": nats, "perplexity": math.exp(min(nats, 700))}
    store = text_store(stores)
    measured = np.asarray(
        store.flat[: 1 << 20], np.int64
    )  # enough text to know how many bytes a token stands for
    num_bytes = len(parts.tokenizer.decode(measured.tolist()).encode())
    if num_bytes:
        metrics["bits_per_byte"] = nats * len(measured) / num_bytes / math.log(2)
    sample = None
    if rows and not should_stop():
        start = parts.tokenizer.decode(
            parts.tokenizer.encode(rows[0]["text"][:200])[: min(16, parts.config.context // 2)]
        )
        written = generate(
            parts, [start], max_tokens=min(120, 2 * parts.config.context), temperature=0.8, seed=0
        )[0]
        sample = str(written)
    whole = (most is None or batches.num_batches(0) <= most) and not should_stop()
    return Evaluation(metrics, sample, whole=whole)


def generate(
    parts: Parts,
    prompts: Sequence[str],
    *,
    max_tokens: int = 200,
    stop: Sequence[str] = (),
    bias: Mapping[str | int, float] | None = None,
    one_of: Sequence[str] | None = None,
    draft: Any = None,
    lookup: int = 0,
    rows: Sequence[int] | None = None,
    batch_tokens: int = 16_384,
    on_text: Callable[[int, str], None] | None = None,
    **choice: Any,
) -> list[Generation]:
    """Continue each prompt.

    A text that outgrows the model's context goes on from the last half of it, as a window of running text that begins
    there, and says so in `windows`. What a prompt gives depends on the seed and on its own place, never on its
    neighbours. Special tokens are never written.

    Args:
        parts: a decoder and its tokenizer.
        prompts: texts; an empty one starts from the end token, which stands before each text in training.
        max_tokens: how many new tokens at most.
        stop: strings that end the text; they are left out of it.
        bias: added to the logits of single tokens, by their ids or by texts of one token (" dog"); -inf forbids one.
        one_of: the texts that may be written, each to its end; the likeliest first step is taken unless a
            temperature or beams are given.
        draft: a smaller model with the same tokenizer (a Model, or its parts), which guesses tokens: faster where it
            guesses well, and the same text.
        lookup: so many tokens are guessed by what followed the same words before; 0: none. The same text too.
        rows: numbers of the prompts, which set their random streams apart; None counts from 0.
        batch_tokens: tokens, prompts and new ones, in memory at once.
        on_text: told (number of the prompt, new text) as it is written; the pieces of each add up to its text.
        choice: how tokens are chosen: fields of `SearchConfig`, but for max_tokens. Unset: what a published model
            was published with, if it samples; else a temperature of 0.8, or 0 with beams.

    Raises:
        ConfigError: the model is no decoder, a setting is out of range or not known, or the draft has another
            vocabulary.
        DataError: a prompt is longer than the context, or leaves no room where the text must fit into one window.
    """
    config, tokenizer = parts.config, parts.tokenizer
    check_verb(config, "generate")
    check_count("batch_tokens", batch_tokens, low=1, high=10**9)
    check_count("lookup", lookup, low=0, high=32)
    check_stops(stop)
    if one_of is not None and not choice.get("num_beams") and choice.get("temperature") is None:
        choice["temperature"] = 0.0
    settings = sampling(parts, max_tokens=max_tokens, **choice)
    numbers = range(len(prompts)) if rows is None else rows
    limits: dict[bool, Trie] = {}
    for first in {not prompt for prompt in prompts} if one_of is not None else ():
        limits[first] = Trie(
            (tokenizer.encode_part(text, first=first) for text in one_of or ()), ends=ends(parts)
        )
    new = _in_one_window(tokenizer, one_of, settings.num_return, settings.max_tokens)
    if one_of is not None:
        settings = replace(settings, max_tokens=new)
    waiting: list[Row] = []
    for number, (prompt, ids) in enumerate(zip(prompts, tokenizer.encode_batch(list(prompts)), strict=True)):
        ids = opened(parts, ids)
        if problem := _problem(len(ids), config.context, new):
            raise DataError(f"prompt {number + 1} {problem}")
        tell = (lambda text, n=number: on_text(n, text)) if on_text and settings.num_beams == 1 else None
        row = Row(numbers[number], prompt, ids, settings.max_tokens, Writer(tokenizer, stop, tell, ids))
        waiting.append(row)
    changes = _changes(parts, settings, bias)
    drafter, budget = _drafter(parts, draft, lookup), max(1, batch_tokens // settings.num_beams)
    several: dict[int, tuple[Candidate, ...]] = {}
    going = waiting
    while going:
        # Texts that may be written begin otherwise where nothing stands before them.
        parted = [[row for row in going if (not row.prompt) is first] for first in limits] or [going]
        for own, first in zip(parted, limits or [False], strict=True):
            way = Way(settings, ends(parts), changes, limits.get(first), drafter)
            for group in groups(own, config.context, budget, same_room=drafter is not None):
                for row, found in zip(group, write_window(parts, group, way), strict=True):
                    several[id(row)] = _candidates(row, found)
        going = [row for row in going if row.left > 0 and not row.finished]
    return [_generation(row, several[id(row)] if settings.num_return > 1 else ()) for row in waiting]


def sampling(parts: Parts, *, max_tokens: int, **choice: Any) -> SearchConfig:
    """Join how tokens are asked to be chosen with what a published model says; None leaves a setting out.

    Raises:
        ConfigError: a setting is not known, out of range, or would be ignored.
    """
    known = {field.name for field in fields(SearchConfig)} - {"max_tokens"}
    for name in choice:
        if name not in known:
            hint = suggest(name, known)
            raise ConfigError(f"generate has no setting {name!r}. {hint or 'See SearchConfig.'}")
    asked = {name: value for name, value in choice.items() if value is not None}
    own = SearchConfig() if parts.published is None else parts.published.config
    base: dict[str, Any] = {name: getattr(own, name) for name in ("repetition_penalty", "no_repeat_ngram")}
    greedy = asked.get("temperature") == 0 or asked.get("num_beams", 1) > 1
    if not greedy and own.temperature > 0:
        base |= {name: getattr(own, name) for name in ("temperature", *NO_LIMIT)}
    elif not greedy:
        base["temperature"] = TEMPERATURE
    seed = asked.pop("seed", None)
    return SearchConfig(
        **{**base, **asked}, max_tokens=max_tokens, seed=secrets.randbits(63) if seed is None else seed
    )


def check_stops(stop: Sequence[str]) -> None:
    """Refuse stop strings that are none.

    Raises:
        ConfigError: they are no list, or one is empty.
    """
    if isinstance(stop, str) or any(not s for s in stop):
        raise ConfigError(
            "stop takes a list of strings, none of them empty: an empty one would end every text at once."
        )


def check_prompts(
    parts: Parts, prompts: Sequence[str], *, one_of: Sequence[str] | None = None, num_return: int = 1,
    max_tokens: int = 200,
) -> dict[int, str]:  # fmt: skip
    """Find the prompts that `generate` would refuse with these settings: their numbers from 0, and what is wrong."""
    new = _in_one_window(parts.tokenizer, one_of, num_return, max_tokens)
    lengths = [len(opened(parts, ids)) for ids in parts.tokenizer.encode_batch(list(prompts))]
    problems = {i: _problem(length, parts.config.context, new) for i, length in enumerate(lengths)}
    return {i: problem for i, problem in problems.items() if problem}


def _in_one_window(
    tokenizer: Tokenizer, one_of: Sequence[str] | None, num_return: int, max_tokens: int
) -> int:
    """Count the new tokens for which a prompt must leave room, as they can't go on in another window."""
    if one_of is None:
        return max_tokens if num_return > 1 else 1
    pieces = (tokenizer.encode_part(text, first=first) for text in one_of for first in (True, False))
    return max((len(ids) for ids in pieces), default=0) + 1


def _problem(length: int, context: int, new: int) -> str:
    if length > context:
        return f"has {length} tokens; this model's context is {context}. Shorten it."
    if length + new - 1 > context:
        return (
            f"has {length} tokens, which leaves no room for {new} more in this model's context of {context}; shorten "
            "it, or lower max_tokens."
        )
    return ""


def _changes(
    parts: Parts, settings: SearchConfig, bias: Mapping[str | int, float] | None
) -> Callable[[int], list[Transform]]:
    """Give what changes the logits: the user's bias, and what a published model never writes."""
    added: dict[int, float] = {}
    for token, value in (bias or {}).items():
        ids = [token] if isinstance(token, int) else parts.tokenizer.encode_part(token, first=False)
        if len(ids) != 1:
            raise ConfigError(
                f"bias: {token!r} is {len(ids)} tokens; give one, as it stands in a text (' dog'), or its id."
            )
        added[ids[0]] = value
    own = [] if not added else [logit_bias(added)]
    said = None if parts.published is None else replace(parts.published, first=None, last=())
    return lambda length: [*own, *([] if said is None else said.transforms(settings, length))]


def _drafter(parts: Parts, draft: Any, lookup: int) -> Callable[[], Drafter] | None:
    """Give what makes the guesses of one batch."""
    if draft is not None and lookup:
        raise ConfigError("tokens are guessed by a draft or by lookup; give one of them.")
    if draft is None:
        return (lambda: Lookup(lookup)) if lookup else None
    small: Parts = getattr(draft, "parts", draft)
    check_verb(small.config, "generate")
    ours, theirs = parts.tokenizer, small.tokenizer
    if ours.vocab_size != theirs.vocab_size or any(
        ours.id_to_token(i) != theirs.id_to_token(i) for i in range(ours.vocab_size)
    ):
        raise ConfigError("the draft has another vocabulary; give a smaller model with the same tokenizer.")
    start: Any = small.module.start
    return lambda: ModelDraft(
        lambda batch: start(batch=batch), context=small.config.context, pad_id=small.config.pad_id or 0,
        device=small.device,
    )  # fmt: skip


def _candidates(row: Row, found: Sequence[Hypothesis]) -> tuple[Candidate, ...]:
    texts = [row.writer.decode(one.ids) for one in found]
    return tuple(
        Candidate(row.writer.cut(text), one.normalised) for text, one in zip(texts, found, strict=True)
    )


def _generation(row: Row, candidates: tuple[Candidate, ...]) -> Generation:
    finished = row.close()
    return Generation(
        row.writer.text,
        row.prompt,
        row.score,
        row.prompt_tokens,
        row.tokens,
        finished,
        row.windows,
        candidates,
        tuple(row.written),
    )
