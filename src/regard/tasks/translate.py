"""Translate, or turn any text into another: an encoder-decoder and beam search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from regard.config import Kind, ModelConfig
from regard.data.objectives import Translate
from regard.data.store import TokenStore
from regard.data.tokenizers import Tokenizer
from regard.errors import ConfigError, DataError
from regard.generate.config import NO_LIMIT, Hypothesis, SearchConfig, check_count
from regard.generate.logits import Transform, forbid, force, only_at
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
    encode_texts,
    framed,
    marks,
    need,
)
from regard.tasks.metrics import score_texts
from regard.tasks.stretch import find_stretch, length_class, usual_limit
from regard.tasks.verbs import check_verb, ends, never_written

BEAMS = 4
"""Hypotheses kept at each step where neither the user nor the model says how many."""


@dataclass(frozen=True)
class Candidate:
    """Hold one of the n best texts: its score is the mean log-probability of a token under the length penalty."""

    text: str
    score: float


@dataclass(frozen=True)
class Translation:
    """Hold the translation of one text.

    Attributes:
        text: the best translation.
        score: its log-probability, divided by its length to the power of the length penalty; nats.
        candidates: the n best, the first among them.
        source_tokens: how many tokens the source took, its end token included; nothing was cut.
        tokens: how many tokens were written.
        finished: False where the limit of tokens ended it.
        ids: the tokens that were written, without an end token.
    """

    text: str
    score: float
    candidates: tuple[Candidate, ...]
    source_tokens: int
    tokens: int
    finished: bool
    ids: tuple[int, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return self.text


class TranslateTask(Task):
    """Learn from pairs of texts."""

    name: ClassVar[str] = "translate"
    help: ClassVar[str] = "any text to any other text, from pairs"
    fields: ClassVar[tuple[str, ...]] = ("source", "target")
    writes: ClassVar[bool] = True
    kinds: ClassVar[tuple[Kind, ...]] = ("encoder-decoder",)
    metric: ClassVar[str] = "bleu"
    by_time: ClassVar[dict[str, Any]] = {"lr": 4e-3, "batch_tokens": 2048}

    def suit(self, size: DataSize) -> Suit:
        """Choose by the number of characters; the figures come from the experiments in docs/log.md."""
        small, medium = size.characters < 20_000_000, size.characters < 200_000_000
        batch_tokens = 4096 if small else 16_384
        return Suit(
            model="translate-small" if small or medium else "transformer-base",
            vocab_size=8000 if small else 16_000 if medium else 32_000,
            model_settings={"dropout": 0.2 if small else 0.1},
            training={
                "epochs": size.epochs(12 if small else 8 if medium else 4, batch_tokens), "batch_tokens": batch_tokens,
                "optimizer": "muon", "lr": 2e-3, "warmup": 200, "schedule": "linear", "label_smoothing": 0.1,
                "average": "ema",
            },
        )  # fmt: skip

    def encode(
        self, rows: Iterable[Values], tokenizer: Tokenizer, config: ModelConfig, folder: Path
    ) -> Stores:
        """Write source.tokens and target.tokens; batches add the end token to both."""
        first = marks(tokenizer, config)[0] if tokenizer.frames else None  # a run of ours has nothing there
        before = [] if first is None else [first]
        limit = config.context - 1 - len(before)

        def encoded(side: str) -> Iterator[list[int]]:
            return ([*before, *ids] for ids in encode_texts((r[side] for r in rows), tokenizer, limit=limit))

        return {
            side: TokenStore.write(folder / f"{side}.tokens", encoded(side), vocab_size=config.vocab_size)
            for side in ("source", "target")
        }

    def about(self, stores: Stores) -> dict[str, Any]:
        """Give `stretch`, see Parts."""
        return {"stretch": find_stretch(stores)}

    def objective(self, stores: Stores, tokenizer: Tokenizer, config: ModelConfig, *, seed: int) -> Any:
        """Give pairs."""
        return Translate(
            stores["source"], stores["target"], bos=need(config.start, "start_id"), eos=need(config.eos_id, "eos_id"),
            pad=need(config.pad_id, "pad_id"),
        )  # fmt: skip

    def evaluate(
        self, parts: Parts, rows: Sequence[Values], stores: Stores, *, quick: bool, should_stop: Stop = lambda: False,
        lowercase: bool = False, beams: int = 1,
    ) -> Evaluation:  # fmt: skip
        """Translate the rows' sources and score them against their targets."""
        chosen = rows[:500] if quick else rows
        texts = [row["source"] for row in chosen]
        results = []
        for found in translate_stream(parts, texts, beams=beams, chunk=250):
            results.append(found.text)
            if should_stop():
                break
        references = [row["target"] for row in chosen[: len(results)]]
        scores = score_texts(results, references, lowercase=lowercase)
        sample = f"{texts[0]}\n→ {results[0]}" if results else None
        exact = sum(a == b for a, b in zip(results, references, strict=True)) / max(1, len(results))
        metrics = {"bleu": scores.bleu, "chrf": scores.chrf, "exact": exact}
        return Evaluation(metrics, sample, {"signature": scores.signature})


def translate(
    parts: Parts,
    texts: Sequence[str],
    *,
    beams: int | None = None,
    length_penalty: float | None = None,
    num_return: int = 1,
    coverage_penalty: float = 0.0,
    source_language: str | None = None,
    target_language: str | None = None,
    max_tokens: int | None = None,
    batch_tokens: int = 8192,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[Translation]:
    """Translate texts, in their order; sorted and batched by length within.

    What a text gives depends on it alone, never on its neighbours. A text of nothing but spaces has an empty
    translation, which no model is asked for. Special tokens are never written.

    Args:
        parts: an encoder-decoder and its tokenizer.
        texts: each must fit the model's context.
        beams: 1 is greedy; None: what the model was published with, or 4.
        length_penalty: scores are divided by length to this power; larger favours longer texts. None: what the model
            was published with, or 1.
        coverage_penalty: above 0 prefers translations that looked at the whole source (GNMT's β, about 0.2); slower.
        num_return: how many candidates each text gets, at most `beams`; fewer where fewer exist.
        source_language: the code of the texts' language, for a model that has such codes ("en_XX"); or as its
            config.json names the task that it was published with, together with the target's ("en" and "de" for T5's
            translation_en_to_de, which says what stands before each text).
        target_language: the code of the language to translate into ("ro_RO", "fra").
        max_tokens: the longest translation, its end token included, at most the context; None: what the model was
            published with, or some 20 to 50 more than twice the source (more where the run learned longer ones), within
            the context.
        batch_tokens: source tokens times beams in memory at once.
        on_done: told after each batch how many texts it finished.

    Raises:
        DataError: a text is longer than the context.
        ConfigError: the model has no encoder and decoder, or a setting is out of range.
    """
    config, tokenizer = parts.config, parts.tokenizer
    check_verb(config, "translate")
    parts, prefix = as_published(parts, source_language, target_language)
    settings, begin = _settings(parts, beams, length_penalty, num_return, max_tokens), None
    settings = replace(settings, coverage_penalty=coverage_penalty)
    check_count("batch_tokens", batch_tokens, low=1, high=10**9)
    check_count("max_tokens", 1 if max_tokens is None else max_tokens, low=1, high=config.context)
    if prefix:
        source_language = target_language = None
    if target_language is not None:
        source_language, begin = frame_languages(tokenizer, source_language, target_language)
    own_limit = parts.published is not None and parts.published.limits_length
    sources = encode_sources(parts, prefixed(texts, prefix), source_language)
    for i, problem in _too_long(sources, config).items():
        raise DataError(f"text {i + 1} ({_excerpt(texts[i])!r}) {problem}")
    done: list[Translation | None] = [
        None if text.strip() else _nothing(len(ids)) for text, ids in zip(texts, sources, strict=True)
    ]
    waiting = [i for i, result in enumerate(done) if result is None]
    if len(waiting) < len(done):
        on_done(len(done) - len(waiting))
    for rows in by_length(sources, waiting, max(1, batch_tokens // settings.num_beams)):
        usual = min(config.context, usual_limit(sources[rows[0]], parts.stretch))
        limit = settings.max_tokens if own_limit else usual
        least = min(settings.min_tokens, max_tokens or limit)
        asked = replace(settings, max_tokens=max_tokens or limit, min_tokens=least)
        found = search_sources(parts, [sources[i] for i in rows], asked, begin)
        for i, hypotheses in zip(rows, found, strict=True):
            done[i] = _translation(hypotheses, len(sources[i]), tokenizer)
        on_done(len(rows))
    return [result for result in done if result is not None]


def check_texts(
    parts: Parts,
    texts: Sequence[str],
    *,
    source_language: str | None = None,
    target_language: str | None = None,
) -> dict[int, str]:
    """Find the texts that `translate` would refuse: the number of each, from 0, and what is wrong with it."""
    parts, prefix = as_published(parts, source_language, target_language)
    return _too_long(encode_sources(parts, prefixed(texts, prefix)), parts.config)


def as_published(parts: Parts, source: str | None, target: str | None) -> tuple[Parts, str]:
    """Give the parts with the settings of a published model's task for these languages, and the task's prefix.

    Raises:
        ConfigError: the model's languages are tasks, and these are none of them.
    """
    if parts.published is None or target is None:
        return parts, ""
    task = parts.published.task(f"translation_{source}_to_{target}")
    if task is not None:
        return replace(parts, published=task.published), task.prefix
    start, codes = "translation_", (target, f">>{target}<<")
    known = [name.removeprefix(start) for name in parts.published.tasks if name.startswith(start)]
    if known and not parts.tokenizer.languages.keys() & codes:
        pair = f"{source or '?'}_to_{target}"
        raise ConfigError(
            f"this model does not translate {pair}; it has {', '.join(sorted(known))}. Name both."
        )
    return parts, ""


def prefixed(texts: Sequence[str], prefix: str) -> list[str]:
    """Put a prefix before texts; without one what is no text stays, for the tokenizer to refuse."""
    return [prefix + text if isinstance(text, str) else text for text in texts]


def encode_sources(parts: Parts, texts: Sequence[str], language: str | None = None) -> list[list[int]]:
    """Give the ids of sources, with what their model expects around them."""
    end, tokenizer = need(parts.config.eos_id, "eos_id"), parts.tokenizer
    return [framed(tokenizer, ids, end=end, language=language) for ids in tokenizer.encode_batch(list(texts))]


def _settings(
    parts: Parts, beams: int | None, length_penalty: float | None, num_return: int, max_tokens: int | None
) -> SearchConfig:
    """Join what was asked for with what the model was published with; a translation is never a sample."""
    if parts.published is None:
        settings = SearchConfig(num_beams=BEAMS)
    else:
        asked: dict[str, Any] = {} if max_tokens is None else {"max_tokens": max_tokens}
        settings = parts.published.search(**{**NO_LIMIT, **asked, "temperature": 0.0, "num_return": 1})
        most = min(settings.max_tokens, parts.config.context)
        settings = replace(settings, max_tokens=most, min_tokens=min(settings.min_tokens, most))
    beams = settings.num_beams if beams is None else beams
    check_count("beams", beams, low=1, high=10_000)
    check_count("num_return", num_return, low=1, high=beams)
    penalty = settings.length_penalty if length_penalty is None else length_penalty
    return replace(settings, num_beams=beams, length_penalty=penalty, num_return=num_return)


def frame_languages(tokenizer: Tokenizer, source: str | None, target: str) -> tuple[str | None, int | None]:
    """Give the language of the source's frame and the token that a translation begins with.

    Models with one language on the target's side name it in the frame of the source (Marian); others begin the
    target with it (mBART).
    """
    codes = tokenizer.languages
    if f">>{target}<<" not in codes and target in codes and not target.startswith(">>"):
        return source, codes[target]
    if source is not None:
        raise ConfigError(
            f"source_language={source!r} has no effect: this model names only the target's language."
        )
    return target, None  # the tokenizer says which codes it has, if it hasn't this one


def _ends_in_language(tokenizer: Tokenizer) -> bool:
    """Tell whether the frame of a source has its language at the end."""
    framed_ids = tokenizer.frame([])[0]
    return bool(framed_ids) and framed_ids[-1] in tokenizer.languages.values()


def search_sources(
    parts: Parts, sources: Sequence[Sequence[int]], settings: SearchConfig, begin: int | None
) -> list[list[Hypothesis]]:
    """Pad sources on the right to one batch, and search; `begin` is the language that each target begins with."""
    config, own = parts.config, parts.published
    start = need(config.start, "start_id") if own is None or own.start_id is None else own.start_id
    if begin is not None and _ends_in_language(parts.tokenizer):
        start, begin = begin, None  # mBART of 2020; later ones have the language after a start token
    transforms: list[Transform] = [forbid(never_written(parts))]
    if own is not None:
        own = own if begin is None else replace(own, first=begin)
        # What must come first or last may be a special token, which else is never written.
        transforms += own.transforms(settings)
    elif begin is not None:
        transforms.append(only_at(1, force([begin])))
    pad, lengths = need(config.pad_id, "pad_id"), torch.tensor([len(ids) for ids in sources])
    batch = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in sources], True, pad)
    mask = None
    if int(lengths.min()) < batch.shape[1]:
        mask = (torch.arange(batch.shape[1])[None] < lengths[:, None]).to(parts.device)
    with torch.inference_mode():
        state = parts.module.start(source=batch.to(parts.device), source_mask=mask)  # type: ignore[operator]
        first = torch.full((len(sources), 1), start, device=parts.device)
        return search(
            state, first, eos_id=ends(parts), pad_id=pad, config=settings, transforms=transforms,
        )  # fmt: skip


def translate_stream(
    parts: Parts, texts: Iterable[str], *, chunk: int = 256, **settings: Any
) -> Iterator[Translation]:
    """Translate any number of texts, a chunk at a time, in order; settings, and errors, as for `translate`."""
    before = 0
    for part in chunks(texts, chunk):
        for i, problem in check_texts(parts, part).items():
            raise DataError(f"text {before + i + 1} ({_excerpt(part[i])!r}) {problem}")
        yield from translate(parts, part, **settings)
        before += len(part)


def chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut a stream into lists of `size`, the last one shorter."""
    part: list[Any] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _too_long(sources: Sequence[Sequence[int]], config: ModelConfig) -> dict[int, str]:
    said = f"tokens with its end; this model reads at most {config.context}. Split it into shorter texts."
    return {i: f"has {len(ids)} {said}" for i, ids in enumerate(sources) if len(ids) > config.context}


def _excerpt(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


def _nothing(source_tokens: int) -> Translation:
    return Translation("", 0.0, (Candidate("", 0.0),), source_tokens, 0, True)


def _translation(hypotheses: list[Hypothesis], source_tokens: int, tokenizer: Tokenizer) -> Translation:
    best = hypotheses[0]
    candidates = tuple(Candidate(tokenizer.decode(h.ids), h.normalised) for h in hypotheses)
    tokens = len(best.ids) + int(best.finished)
    return Translation(
        candidates[0].text, best.normalised, candidates, source_tokens, tokens, best.finished, tuple(best.ids)
    )


def by_length(sequences: Sequence[Sequence[int]], numbers: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Group the numbers of sequences of similar length, longest first, at most `budget` padded tokens a group.

    A group is of one length class, which sets its limit of tokens: so no text's result depends on its neighbours.
    """
    group: list[int] = []
    for i in sorted(numbers, key=lambda i: (-len(sequences[i]), i)):
        full = group and (len(group) + 1) * len(sequences[group[0]]) > budget
        if group and (full or length_class(sequences[i]) != length_class(sequences[group[0]])):
            yield group
            group = []
        group.append(i)
    if group:
        yield group
