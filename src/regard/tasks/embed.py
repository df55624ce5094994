"""Embed: one vector a text, from the states of its tokens; and the texts whose vectors are nearest to a query's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from regard.config import Pooling
from regard.errors import ConfigError, DataError, suggest
from regard.generate.config import check_count
from regard.models.pooling import pool
from regard.tasks.base import Parts
from regard.tasks.bulk import Broken, check_target, lock, problems, read_lines
from regard.tasks.framing import as_trained, refuse, states
from regard.tasks.inputs import Input, batches, check_lengths, make_inputs
from regard.tasks.translate import chunks
from regard.tasks.verbs import check_verb

__all__ = ["Embedding", "Match", "Search", "check_embed", "embed", "search", "write_vectors"]

_BLOCK = 512


@dataclass(frozen=True, eq=False)
class Embedding:
    """Hold a text's vector.

    Attributes:
        vector: (D,), fp32.
        pooling: how it was made of the tokens' states: mean, first or last.
        normalised: whether its length is 1.
        tokens: how many tokens the text took, special ones included.
        windows: into how many windows it was cut; 1 where it wasn't.
    """

    vector: np.ndarray
    pooling: Pooling
    normalised: bool
    tokens: int
    windows: int = 1


@dataclass(frozen=True)
class Match:
    """Hold a text that was found: its number, counted from 1, and the cosine of its vector and the query's."""

    number: int
    text: str
    similarity: float


@dataclass(frozen=True)
class Search:
    """Hold what was found for a query: the nearest texts, nearest first; and how many tokens the query took."""

    query: str
    matches: tuple[Match, ...]
    tokens: int


def embed(
    parts: Parts,
    texts: Sequence[str],
    *,
    pooling: Pooling | None = None,
    normalise: bool | None = None,
    windows: bool = False,
    batch_tokens: int = 8192,
    on_done: Callable[[int], None] = lambda count: None,
) -> list[Embedding]:
    """Make a vector of each text: the mean of its tokens' final states, the first or the last one.

    Special tokens around a text count as its tokens, as they do where sentence encoders are trained. A text in several
    windows has the mean of their vectors, weighted by their tokens. What a text gives depends on it alone.

    Args:
        parts: any model and its tokenizer; of an encoder-decoder the encoder's states are taken.
        texts: none of them may be without any token.
        pooling: None: what the model's folder says; else, for a model that classifies, as it does; else the mean.
        normalise: divide each vector by its length; None: what the model's folder says, or no.
        windows: cut texts that are too long into windows that overlap by half.
        batch_tokens: tokens in memory at once.
        on_done: told after each batch how many windows it finished.

    Raises:
        ConfigError: there is no such pooling.
        DataError: a text is longer than the context, or than the sentences that the folder allows, or has no token.
    """
    check_verb(parts.config, "embed")
    check_count("batch_tokens", batch_tokens, low=1, high=10**9)
    pooling, normalise = _settings(parts, pooling, normalise)
    inputs = _inputs(parts, texts, windows=windows)
    refuse(_problems(parts, inputs), texts)
    width = parts.config.width
    sums = np.zeros((len(texts), width), np.float64)
    weights, cut = np.zeros(len(texts)), np.zeros(len(texts), int)
    for batch in batches(parts, inputs, batch_tokens=batch_tokens):
        with torch.inference_mode():
            pooled = pool(states(parts, batch).float(), batch.mask, pooling).cpu().double().numpy()
        for one, vector in zip(batch.inputs, pooled, strict=True):
            weight = max(1, one.count)
            sums[one.text] += vector * weight
            weights[one.text] += weight
            cut[one.text] += 1
        on_done(len(batch.inputs))
    vectors = sums / weights[:, None]
    if normalise:
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    totals = {one.text: one.total for one in inputs}
    return [
        Embedding(vector, pooling, normalise, totals[i], int(cut[i]))
        for i, vector in enumerate(vectors.astype(np.float32))
    ]


def check_embed(parts: Parts, texts: Sequence[str], *, windows: bool = False) -> dict[int, str]:
    """Find the texts that `embed` would refuse: the number of each, from 0, and what is wrong with it."""
    return _problems(parts, _inputs(parts, texts, windows=windows))


def search(
    parts: Parts,
    queries: Sequence[str],
    texts: Iterable[str],
    *,
    top: int = 5,
    pooling: Pooling | None = None,
    windows: bool = False,
    batch_tokens: int = 8192,
    what: str = "text",
) -> list[Search]:
    """Find for each query the texts whose vectors have the largest cosine with its own.

    Texts are read once, some hundreds in memory at a time; blank ones are passed over. Of equal ones the earlier comes
    first.

    Args:
        parts: any model and its tokenizer.
        queries: what is looked for.
        texts: where.
        top: how many texts each query gets.
        pooling: as for `embed`.
        windows: as for `embed`.
        batch_tokens: as for `embed`.
        what: the texts are called so where one of them can't be embedded.

    Raises:
        ConfigError: a setting is out of range.
        DataError: a query or a text can't be embedded.
    """
    check_count("top", top, low=1, high=100_000)
    asked = embed(parts, queries, pooling=pooling, normalise=True, windows=windows, batch_tokens=batch_tokens)
    if not asked:
        return []
    matrix = np.stack([one.vector for one in asked])
    found: list[list[Match]] = [[] for _ in queries]
    for block in chunks(enumerate(texts, 1), _BLOCK):
        kept = [(number, text) for number, text in block if text.strip()]
        some = [text for _, text in kept]
        for i, problem in check_embed(parts, some, windows=windows).items():
            refuse({0: problem}, [some[i]], before=kept[i][0] - 1, what=what)
        own = embed(parts, some, pooling=pooling, normalise=True, windows=windows, batch_tokens=batch_tokens)
        if not own:
            continue
        cosines = matrix @ np.stack([one.vector for one in own]).T
        for matches, row in zip(found, cosines, strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            matches += [Match(kept[i][0], some[i], float(row[i])) for i in best]
            matches.sort(key=lambda match: (-match.similarity, match.number))
            del matches[top:]
    return [
        Search(query, tuple(matches), one.tokens)
        for query, matches, one in zip(queries, found, asked, strict=True)
    ]


def write_vectors(
    parts: Parts,
    source: Path,
    target: Path,
    *,
    pooling: Pooling | None = None,
    normalise: bool | None = None,
    windows: bool = False,
    encoding: str = "utf-8",
    skip_bad_rows: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[int, list[int]]:
    """Write a matrix (lines, D) in fp32, in numpy's format, one row a line of a text file.

    Some hundreds of lines are in memory at a time. The matrix appears whole or not at all; a job that was stopped
    begins again.

    Args:
        parts: any model and its tokenizer.
        source: text file, one text a line.
        target: the file to write; must not exist yet.
        pooling: as for `embed`.
        normalise: as for `embed`.
        windows: as for `embed`.
        encoding: of the source.
        skip_bad_rows: write NaN for a line that can't be embedded, where else it is an error.
        progress: told (lines done, lines in all).

    Returns:
        How many lines there are, and the numbers, from 1, of those that were skipped.

    Raises:
        DataError: the source can't be read, a line can't be embedded (with its number), or the disk is full.
        ConfigError: the target exists, or another process is writing it.
    """
    check_target(target)
    total, bad = 0, []
    for part in chunks(read_lines(source, encoding), _BLOCK):
        wrong_here = problems(part, lambda some: check_embed(parts, some, windows=windows))
        for i, problem in sorted(wrong_here.items()):
            if not skip_bad_rows:
                raise DataError(
                    f"{source}:{total + i + 1}: {problem} Or leave such rows NaN with --skip-bad-rows."
                )
            bad.append(total + i + 1)
        total += len(part)
    if not total:
        raise DataError(f"{source} is empty.")
    wrong, width, partial = set(bad), parts.config.width, target.with_name(target.name + ".part")
    try:
        with partial.open("ab") as file:
            lock(file, partial)
            try:
                file.truncate(0)
                header = {"descr": "<f4", "fortran_order": False, "shape": (total, width)}
                np.lib.format.write_array_header_1_0(file, header)
                for block in chunks(enumerate(read_lines(source, encoding), 1), _BLOCK):
                    good = [text for number, text in block if number not in wrong]
                    own = embed(parts, good, pooling=pooling, normalise=normalise, windows=windows)
                    rows = np.full((len(block), width), np.nan, "<f4")
                    for k, one in zip(
                        (k for k, (n, _) in enumerate(block) if n not in wrong), own, strict=True
                    ):
                        rows[k] = one.vector
                    file.write(rows.tobytes())
                    progress(block[-1][0], total)
                file.flush()
                os.fsync(file.fileno())
                os.replace(partial, target)
            finally:  # while the file is still ours
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{target} can't be written: {error.strerror or error}.") from None
    return total, bad


def lines_of(path: Path, encoding: str = "utf-8") -> Iterable[str]:
    """Give the lines of a text file, without their ends.

    Raises:
        DataError: it isn't there, or a line isn't text of that encoding.
        ConfigError: there is no such encoding.
    """
    for number, line in enumerate(read_lines(path, encoding), 1):
        if isinstance(line, Broken):
            raise DataError(f"{path}:{number}: {line.problem}")
        yield line


def _settings(parts: Parts, pooling: Pooling | None, normalise: bool | None) -> tuple[Pooling, bool]:
    """Join what was asked for with what the model's folder says."""
    said, known = parts.sentences or {}, get_args(Pooling)
    if pooling is not None and pooling not in known:
        hint = suggest(str(pooling), known)
        raise ConfigError(f"pooling={pooling!r} is not one of {', '.join(known)}. {hint}".strip())
    usual = parts.config.pooling if parts.config.head == "classify" else "mean"
    chosen = pooling or said.get("pooling") or usual
    return chosen, bool(said.get("normalise", False)) if normalise is None else normalise


def _reading(parts: Parts) -> Parts:
    """Give parts that frame texts, within the length that a sentence encoder's folder allows."""
    parts = as_trained(parts)
    longest = (parts.sentences or {}).get("max_length") or parts.config.context
    if longest >= parts.config.context:
        return parts
    return replace(parts, config=parts.config.replace(context=longest))


def _inputs(parts: Parts, texts: Sequence[str], *, windows: bool) -> list[Input]:
    parts = _reading(parts)
    return make_inputs(parts, parts.tokenizer.encode_batch(list(texts)), windows=windows)


def _problems(parts: Parts, inputs: Sequence[Input]) -> dict[int, str]:
    empty = {one.text: "has no token, and so no vector; leave it out." for one in inputs if not one.ids}
    return {**check_lengths(inputs, _reading(parts).config), **empty}
