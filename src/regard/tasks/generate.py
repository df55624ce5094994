"""Generate: continue a text, token by token."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
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
from regard.generate.config import SearchConfig
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
    small_or_large,
    text_store,
)  # fmt: skip
from regard.training.loss import sequence_loss, validation_loss


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
        """Choose by the number of characters."""
        presets = {"small": "generate-tiny", "medium": "generate-small", "large": "generate-medium"}
        return small_or_large(size, presets)

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
        bos=config.bos_id if packed else None,
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
    on_text: Callable[[int, str], None] | None = None,
) -> list[Generation]:
    """Continue each prompt.

    A text that reaches the model's context goes on from the last half of it, and says so in `windows`. Each prompt is
    continued by itself: what it gives depends on the seed and its own place, never on its neighbours.

    Args:
        parts: a decoder and its tokenizer.
        prompts: texts; an empty one starts from the beginning-of-text token.
        max_tokens: how many new tokens at most.
        temperature: 0 always takes the likeliest token; the filters then have no effect and are refused.
        top_k: sample among so many likeliest tokens; 0: all.
        top_p: sample among the fewest tokens whose probabilities reach this sum.
        min_p: sample among tokens at least this share as likely as the likeliest.
        repetition_penalty: above 1 makes tokens less likely that stand there already.
        no_repeat_ngram: no run of so many tokens comes twice; 0: no limit.
        stop: strings that end the text; they are left out of it.
        seed: of the samples; None: a fresh one each time.
        on_text: told (number of the prompt, new text) as it is written; the pieces add up to the text.

    Raises:
        ConfigError: the model is no decoder, or a setting is out of range.
        DataError: a prompt leaves no room in the context.
    """
    config, tokenizer = parts.config, parts.tokenizer
    if config.kind != "decoder":
        raise ConfigError(f"this model is an {config.kind}; generating needs a decoder.")
    if any(not s for s in stop):
        raise ConfigError("an empty stop string would end every text at once; leave it out.")
    seed = int(torch.seed() % 2**63) if seed is None else seed
    settings = SearchConfig(
        max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
        repetition_penalty=repetition_penalty, no_repeat_ngram=no_repeat_ngram, seed=seed if temperature > 0 else None,
    )  # fmt: skip
    results = []
    for number, prompt in enumerate(prompts):
        ids = tokenizer.encode(prompt)
        if not ids:
            ids = [config.start if config.start is not None else 0]
        if len(ids) >= config.context:
            raise DataError(
                f"prompt {number + 1} has {len(ids)} tokens; this model's context is {config.context}, "
                "and the answer needs room too."
            )
        tell = (lambda text, n=number: on_text(n, text)) if on_text else None
        results.append(
            _continue(
                parts,
                prompt,
                ids,
                replace(settings, seed=_mixed(seed, number)) if temperature > 0 else settings,
                stop,
                tell,
            )
        )
    return results


def _continue(
    parts: Parts,
    prompt: str,
    ids: list[int],
    settings: SearchConfig,
    stop: Sequence[str],
    tell: Callable[[str], None] | None,
) -> Generation:
    """Write one continuation, window by window."""
    config = parts.config
    writer = _Writer(parts.tokenizer, stop, tell)
    window, windows, score, left, finished = list(ids), 1, 0.0, settings.max_tokens, False
    while left > 0 and not finished:
        if len(window) >= config.context:
            window, windows = window[-(config.context // 2) or -1 :], windows + 1
        step = replace(settings, max_tokens=min(left, config.context - len(window)), min_tokens=0)
        if step.seed is not None and windows > 1:
            step = replace(step, seed=_mixed(step.seed, windows))
        with torch.inference_mode():
            state = parts.module.start(batch=1)  # type: ignore[operator]
            (best,), *_ = search(
                state, torch.tensor([window], device=parts.device), eos_id=config.eos_id, pad_id=config.pad_id or 0,
                config=step, on_token=lambda row, token: writer.add(token), stop=lambda row, ids: writer.stopped,
            )  # fmt: skip
        score, left = score + best.score, left - len(best.ids) - int(best.finished and not writer.stopped)
        window += best.ids
        finished = best.finished or writer.stopped
    writer.finish()
    return Generation(writer.text, prompt, score, len(ids), settings.max_tokens - left, finished, windows)


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


def _mixed(seed: int, number: int) -> int:
    """Give each prompt and window a seed of its own; the first keeps the user's."""
    return (seed + number * 0x9E3779B97F4A7C15) % 2**63
