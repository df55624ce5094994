"""Texts on a map: their vectors, the plane in which these differ most, and which are nearest to a query."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from regard.errors import DataError
from regard.model import Model
from regard.serve.work import Job
from regard.tasks.bulk import Broken, read_lines
from regard.tasks.embed import check_embed
from regard.tasks.framing import refuse

__all__ = ["Laid", "embed_file", "embed_texts", "nearest", "plane"]

MOST_LINES = 5000
_BLOCK = 128  # texts between two looks at whether the client is still there
_SHOWN = 300  # characters of a text on the map
_KEPT = 4  # files a model

Stamp = tuple[Path, int, int, int]
_laid: WeakKeyDictionary[Model, OrderedDict[Stamp, Laid]] = WeakKeyDictionary()
_lock = Lock()


@dataclass(frozen=True, eq=False)
class Laid:
    """Hold texts with their vectors and their places.

    Attributes:
        texts: n of them.
        vectors: (n, D), each of length 1.
        places: (n, 2).
        how: how the places came about, in words.
        left_out: lines that were blank, broken, without a token, or beyond the most.
    """

    texts: list[str]
    vectors: NDArray[np.float32]
    places: NDArray[np.float64]
    how: str
    left_out: int = 0

    def points(self) -> list[dict[str, Any]]:
        """Give each text, its beginning at least, with its place."""
        return [
            {"text": text[:_SHOWN], "x": x, "y": y}
            for text, (x, y) in zip(self.texts, self.places.tolist(), strict=True)
        ]


def embed_texts(job: Job, model: Model, texts: Sequence[str], left_out: int = 0) -> Laid:
    """Embed texts and lay them out.

    Raises:
        DataError: a text has no token.
        Cancelled: the client has gone.
    """
    found: list[NDArray[np.float32]] = []
    pooling = ""
    for start in range(0, len(texts), _BLOCK):
        job.check()
        wrong = check_embed(model.parts, texts[start : start + _BLOCK], windows=True)
        refuse({start + i: problem for i, problem in wrong.items()}, texts)
        some = model.embed(texts[start : start + _BLOCK], normalise=True, windows=True)
        found += [one.vector for one in some]
        pooling = some[0].pooling
    vectors = np.stack(found)
    job.check()
    places, share = plane(vectors)
    how = f"the two directions in which the {len(texts):,} vectors ({pooling}, of length 1) differ most"
    return Laid(list(texts), vectors, places, f"PCA: {how}; they have {share:.0%} of the variance", left_out)


def embed_file(job: Job, model: Model, path: Path) -> Laid:
    """Embed a file's lines, or give what was found before, where neither the file nor the model has changed.

    Raises:
        DataError: it has no line that can be embedded.
        Cancelled: the client has gone.
    """
    try:
        about = path.stat()
    except OSError as error:
        raise DataError(f"{path.name} can't be read: {error.strerror or error}.") from None
    stamp = (path, about.st_ino, about.st_size, about.st_mtime_ns)
    with _lock:
        kept = _laid.setdefault(model, OrderedDict())
        if stamp in kept:
            kept.move_to_end(stamp)
            return kept[stamp]
    texts: list[str] = []
    left_out = 0
    for number, line in enumerate(read_lines(path, "utf-8")):
        if number % 1000 == 0:
            job.check()
        if isinstance(line, Broken) or not line.strip() or len(texts) == MOST_LINES:
            left_out += 1
        else:
            texts.append(line)
    bare: set[int] = set()
    for start in range(0, len(texts), _BLOCK):
        job.check()
        bare |= {start + i for i in check_embed(model.parts, texts[start : start + _BLOCK], windows=True)}
    texts = [text for i, text in enumerate(texts) if i not in bare]
    if not texts:
        raise DataError(f"{path.name} has no line of text that can be embedded.")
    laid = embed_texts(job, model, texts, left_out + len(bare))
    with _lock:
        kept[stamp] = laid
        while len(kept) > _KEPT:
            kept.popitem(last=False)
    return laid


def nearest(model: Model, laid: Laid, query: str, top: int) -> list[dict[str, Any]]:
    """Give the texts whose vectors have the largest cosine with the query's; of equal ones the earlier first."""
    vector = model.embed(query, normalise=True, windows=True).vector
    cosines = laid.vectors @ vector
    best = np.argsort(-cosines, kind="stable")[:top].tolist()
    return [{"text": laid.texts[i][:_SHOWN], "score": float(cosines[i]), "index": i} for i in best]


def plane(vectors: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], float]:
    """Project vectors (n, D) on their first two principal components; give (n, 2) and the share of the variance.

    A component's sign is such that its largest entry is positive, so that the same texts lie the same way each time.
    """
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    total = float((centred**2).sum())
    if total < 1e-18 * max(1, len(vectors)):  # one text, or the same one again and again
        return np.zeros((len(vectors), 2)), 1.0
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    largest = np.abs(axes).argmax(0)
    axes = axes * np.sign(axes[largest, range(axes.shape[1])])
    places = np.zeros((len(vectors), 2))
    places[:, : axes.shape[1]] = centred @ axes
    return places, float((places**2).sum() / total)
