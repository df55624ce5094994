"""Generate: continue a text, token by token."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from regard.config import Kind, ModelConfig
from regard.data.batches import Batches
from regard.data.objectives import Generate
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError
from regard.generate.config import Hypothesis, SearchConfig, check_count
from regard.generate.logits import forbid
from regard.generate.search import search
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
    framed,
    text_store,
)  # fmt: skip
from regard.tasks.verbs import check_verb, ends, never_written
from regard.training.loss import sequence_loss, validation_loss

_WINDOW_STEP = 0x9E3779B97F4A7C15  # sets the random streams of a text's windows apart


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
    """

    text: str
    prompt: str
    score: float
    prompt_tokens: int
    tokens: int
    finished: bool
    windows: int = 1

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
        return _objective(stores, config, random_phase=True)

    def evaluate(
        self, parts: Parts, rows: Sequence[Values], stores: Stores, *, quick: bool, should_stop: Stop = lambda: False,
        lowercase: bool = False, beams: int = 1,
    ) -> Evaluation:  # fmt: skip
        """Give the loss in nats a token, perplexity, and bits a byte of the original text."""
        examples = _objective(stores, parts.config, random_phase=False)
        return evaluate_likelihood(parts, examples, stores, rows, quick=quick, should_stop=should_stop)


def _objective(stores: Stores, config: ModelConfig, *, random_phase: bool) -> Generate:
    packed = "documents" in stores
    return Generate(
        text_store(stores), context=config.context, pad=config.pad_id or 0, packed=packed,
        bos=config.eos_id if packed else None,  # in a stream too, what stands before a text is an end token
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
    most = min(batches.num_batches(0), 8) if quick else batches.num_batches(0)
    found = validation_loss(
        parts.module, (batches.batch(0, k) for k in range(most)), sequence_loss, should_stop=should_stop
    )
    nats = found["nll"]
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
    return Evaluation(metrics, sample)


def generate(
    parts: Parts,
    prompts: Sequence[str],
    *,
    max_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    no_repeat_ngram: int = 0,
    stop: Sequence[str] = (),
    seed: int | None = None,
    batch_tokens: int = 16_384,
    on_text: Callable[[int, str], None] | None = None,
) -> list[Generation]:
    """Continue each prompt.

    A text that outgrows the model's context goes on from the last half of it, as a window of running text that begins
    there, and says so in `windows`. What a prompt gives depends on the seed and on its own place, never on its
    neighbours. Special tokens are never written.

    Args:
        parts: a decoder and its tokenizer.
        prompts: texts; an empty one starts from the end token, which stands before each text in training.
        max_tokens: how many new tokens at most.
        temperature: 0 always takes the likeliest token; the filters then have no effect and are refused.
        top_k: sample among so many likeliest tokens; 0: all.
        top_p: sample among the fewest tokens whose probabilities reach this sum.
        min_p: sample among tokens at least this share as likely as the likeliest.
        repetition_penalty: above 1 makes tokens less likely that stand in the window already.
        no_repeat_ngram: no run of so many tokens comes twice in a window; 0: no limit.
        stop: strings that end the text; they are left out of it.
        seed: of the samples; None: a fresh one each time.
        batch_tokens: tokens, prompts and new ones, in memory at once.
        on_text: told (number of the prompt, new text) as it is written; the pieces of each add up to its text.

    Raises:
        ConfigError: the model is no decoder, or a setting is out of range.
        DataError: a prompt is longer than the context.
    """
    config = parts.config
    check_verb(config, "generate")
    check_count("batch_tokens", batch_tokens, low=1, high=10**9)
    if isinstance(stop, str) or any(not s for s in stop):
        raise ConfigError(
            "stop takes a list of strings, none of them empty: an empty one would end every text at once."
        )
    settings = SearchConfig(
        max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
        repetition_penalty=repetition_penalty, no_repeat_ngram=no_repeat_ngram,
        seed=secrets.randbits(63) if seed is None else seed,
    )  # fmt: skip
    rows = []
    for number, (prompt, ids) in enumerate(
        zip(prompts, parts.tokenizer.encode_batch(list(prompts)), strict=True)
    ):
        ids = _opened(parts, ids)
        if len(ids) > config.context:
            raise DataError(
                f"prompt {number + 1} has {len(ids)} tokens; this model's context is {config.context}. Shorten it."
            )
        tell = (lambda text, n=number: on_text(n, text)) if on_text else None
        rows.append(_Row(number, prompt, ids, max_tokens, _Writer(parts.tokenizer, stop, tell)))
    going = rows
    while going:
        for group in _groups(going, config.context, batch_tokens):
            _write_window(parts, group, settings)
        going = [row for row in going if row.left > 0 and not row.finished]
    return [row.result() for row in rows]


def _opened(parts: Parts, ids: list[int]) -> list[int]:
    """Put before a prompt what its model expects there; an empty one begins as the texts did in training."""
    ids = framed(parts.tokenizer, ids, end=None)
    while len(ids) > 1 and ids[-1] == parts.config.eos_id:
        ids = ids[:-1]  # a frame may close the text, which is to go on
    return ids or [next((i for i in (parts.config.eos_id, parts.config.start) if i is not None), 0)]


class _Row:
    """Follow one continuation from window to window."""

    def __init__(self, number: int, prompt: str, ids: list[int], left: int, writer: _Writer) -> None:
        self.number, self.prompt, self.window, self.left, self.writer = (
            number,
            prompt,
            list(ids),
            left,
            writer,
        )
        self.prompt_tokens, self.tokens, self.windows = len(ids), 0, 1
        self.score, self.finished = 0.0, False

    def room(self, context: int) -> int:
        """Count the tokens that this window may get; the last one is never fed and takes no place."""
        return min(self.left, context - len(self.window) + 1)

    def next_window(self, context: int) -> None:
        """Go on from the last half of a window that is full."""
        if len(self.window) > context:
            self.window, self.windows = self.window[-max(1, context // 2) :], self.windows + 1

    def take(self, found: Hypothesis, room: int) -> None:
        """Add what a search wrote: to the end token, to a stop string, or to the end of the room."""
        ended = found.finished and not self.writer.stopped and len(found.ids) < room
        self.tokens += len(found.ids) + ended
        self.left -= len(found.ids) + ended
        self.score += found.score
        self.window += found.ids
        self.finished = ended or self.writer.stopped

    def result(self) -> Generation:
        """Let out the rest of the text."""
        self.writer.finish()
        finished = self.finished or self.writer.stopped
        return Generation(
            self.writer.text, self.prompt, self.score, self.prompt_tokens, self.tokens, finished, self.windows
        )


def _groups(rows: Sequence[_Row], context: int, budget: int) -> Iterator[list[_Row]]:
    """Put rows whose windows are of similar length together, longest first, within a budget of padded tokens."""
    group: list[_Row] = []
    slots = 0
    for row in rows:
        row.next_window(context)
    for row in sorted(rows, key=lambda row: (-len(row.window), row.number)):
        grown = max(slots, (len(group[0].window) if group else len(row.window)) + row.room(context))
        if group and ((len(group) + 1) * grown > budget or 2 * len(row.window) < len(group[0].window)):
            yield group
            group, grown = [], len(row.window) + row.room(context)
        group.append(row)
        slots = grown
    if group:
        yield group


def _write_window(parts: Parts, rows: Sequence[_Row], settings: SearchConfig) -> None:
    """Continue rows side by side, padded on the left, each until its own window is full."""
    config, longest = parts.config, max(len(row.window) for row in rows)
    pad = config.pad_id or 0
    ids = torch.tensor(
        [[pad] * (longest - len(row.window)) + row.window for row in rows], device=parts.device
    )
    real = torch.tensor([len(row.window) for row in rows], device=parts.device)
    mask = torch.arange(longest, device=parts.device) >= longest - real[:, None]
    rooms = [row.room(config.context) for row in rows]
    # Rows that go on together are in the same window; each window has random numbers of its own.
    seed = None if settings.temperature == 0 else (settings.seed or 0) + (rows[0].windows - 1) * _WINDOW_STEP
    settings = replace(settings, max_tokens=max(rooms), seed=None if seed is None else seed % 2**63)

    def full(place: int, new: list[int]) -> bool:
        return rows[place].writer.stopped or len(new) >= rooms[place]

    with torch.inference_mode():
        state = parts.module.start(batch=len(rows))  # type: ignore[operator]
        found = search(
            state, ids, key_mask=mask, eos_id=ends(parts), pad_id=pad, config=settings,
            rows=[row.number for row in rows], transforms=[forbid(never_written(parts))],
            on_token=lambda place, token: rows[place].writer.add(token), stop=full,
        )  # fmt: skip
    for row, (best,), room in zip(rows, found, rooms, strict=True):
        row.take(best, room)


class _Writer:
    """Decode tokens as they come, and hold back what may be the beginning of a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], tell: Callable[[str], None] | None) -> None:
        self._stream, self._stop, self._tell = tokenizer.stream(), tuple(stop), tell
        self._held, self.text, self.stopped = "", "", False

    def add(self, token: int) -> None:
        """Take the next token."""
        if not self.stopped:
            self._take(self._stream.add(token))

    def finish(self) -> None:
        """Let out what is held back."""
        if not self.stopped:
            self._take(self._stream.finish())
        if not self.stopped:
            self._say(self._held)

    def _take(self, new: str) -> None:
        self._held += new
        places = [self._held.find(s) for s in self._stop if s in self._held]
        if places:
            self._say(self._held[: min(places)])
            self.stopped = True
            return
        keep = max((n for s in self._stop for n in range(1, len(s)) if self._held.endswith(s[:n])), default=0)
        self._say(self._held[: len(self._held) - keep])
        self._held = self._held[len(self._held) - keep :]

    def _say(self, text: str) -> None:
        self.text += text
        if text and self._tell is not None:
            self._tell(text)
