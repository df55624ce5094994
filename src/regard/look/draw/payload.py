"""Pack what a look captured for the browser: the texts, and arrays from which it computes any weight itself.

Of each layer go queries, keys and normalisers, O(n·d), in the type in which they were captured; the weights themselves
instead where those are much smaller; and for long texts a picture of the whole matrix at a coarse cell, mean and
maximum, since a browser can't walk over all of it. What a rounding costs is measured and said.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from regard.errors import ConfigError, suggest
from regard.look.capture import worst_of
from regard.look.tiles import Kind, Pyramid

if TYPE_CHECKING:
    from regard.look.capture import Captured
    from regard.look.reading import Look, Side

__all__ = ["VERSION", "WHOLE", "meta", "payload"]

Pyramids = bool | Mapping[tuple[str, int], Pyramid]

VERSION = 1
WHOLE = 6_600_000  # weights of a head that a browser holds at once; a longer text gets a pyramid
FINEST = 2048  # cells along the longer axis of a pyramid's finest level
_AS_CAPTURED = 4 * 2**20  # bytes of queries and keys that are worth a picture of each weight's parts
_SINGLE = 48 * 2**20  # bytes beyond which single precision is rounded to half
_PROBED = 8  # rows of each head in which the error is measured


def payload(
    look: Look, *, layers: Collection[str] | None = None, heads: Collection[int] | None = None,
    title: str | None = None, pyramids: Pyramids = True,
) -> dict[str, Any]:  # fmt: skip
    """Give what the browser needs to know of a look, as JSON holds it.

    Args:
        look: what was captured.
        layers: names of those to pack; None packs all.
        heads: their numbers, of every layer; None packs all.
        title: instead of the look's own.
        pyramids: those of heads that have one already, by layer and head; True: the coarse pictures of all heads are
            computed where a text is long, which walks once over every weight; False: a long text is shown by samples
            until one is near enough.

    Raises:
        ConfigError: no such layer or head.
    """
    chosen = _chosen(look, layers)
    numbers = {name: _heads(captured, heads) for name, captured in chosen.items()}
    kept = sum(_kept_bytes(captured, numbers[name]) for name, captured in chosen.items())
    packed, sides = [], {}
    for name, captured in chosen.items():
        rows, columns = look.rows_of(name), look.columns_of(name)
        for side in (rows, columns):
            sides[side.name] = side
        packed.append(
            {"name": name, "rows": rows.name, "columns": columns.name, "heads": numbers[name]}
            | _layer(captured, numbers[name], kept=kept, pyramids=pyramids)
        )
    return {
        "version": VERSION,
        "title": title or look.title,
        "model": look.model,
        "sides": {name: _side(side) for name, side in sides.items()},
        "layers": packed,
    }


def meta(look: Look) -> dict[str, Any]:
    """Give what the browser needs to know before it asks for any weight, as JSON holds it: texts and layers."""
    sides = {side.name: _side(side) for side in look.sides.values()}
    layers = [
        {
            "name": name,
            "rows": look.rows_of(name).name,
            "columns": look.columns_of(name).name,
            "numRows": captured.shape[0],
            "numColumns": captured.shape[1],
            "heads": list(range(captured.heads)),
            "hasNumbers": True,
            "error": _sane(captured.error),
        }
        for name, captured in look.layers.items()
    ]
    return {"title": look.title, "model": look.model, "sides": sides, "layers": layers}


def _chosen(look: Look, layers: Collection[str] | None) -> dict[str, Captured]:
    if layers is None:
        chosen = dict(look.layers)
    else:
        for name in layers:
            if name not in look.layers:
                hint = suggest(name, look.layers) or f"there are {', '.join(look.layers)}"
                raise ConfigError(f"no layer {name!r} was captured; {hint}")
        chosen = {name: look.layers[name] for name in layers}
    if not chosen:
        raise ConfigError("no layer to draw: capture at least one.")
    return chosen


def _heads(captured: Captured, heads: Collection[int] | None) -> list[int]:
    if heads is None:
        return list(range(captured.heads))
    found = sorted(set(heads))
    if not found or found[0] < 0 or found[-1] >= captured.heads:
        raise ConfigError(f"{captured.name} has heads 0 to {captured.heads - 1}; asked for {list(heads)}.")
    return found


def _side(side: Side) -> dict[str, Any]:
    tokens, words = side.tokens, side.words
    return {
        "name": side.name,
        "tokens": [token.text for token in tokens],
        "joined": [k for k in range(1, len(tokens)) if _is_joined(side, k)],
        "special": [k for k, token in enumerate(tokens) if token.special],
        "words": {
            "text": [word.text for word in words],
            "first": [word.start for word in words],
            "last": [word.end for word in words],
            "special": [k for k, word in enumerate(words) if word.special],
        },
    }


def _is_joined(side: Side, k: int) -> bool:
    """Tell whether a token stands right behind the one before, without a blank."""
    before, token = side.tokens[k - 1], side.tokens[k]
    if token.start == token.end or before.start == before.end:
        return False
    return token.start <= before.end and not side.text[token.start : token.start + 1].isspace()


def _shared(captured: Captured, head: int) -> int:
    return head * captured.kv_heads // captured.heads


def _kept_bytes(captured: Captured, heads: Sequence[int]) -> int:
    """Count the bytes of the queries and keys of some heads."""
    (T, S), K = captured.shape, captured.query.shape[-1]
    num_keys = len({_shared(captured, head) for head in heads})
    return (len(heads) * T + num_keys * S) * K * min(4, captured.query.element_size())


def _layer(captured: Captured, heads: Sequence[int], *, kept: int, pyramids: Pyramids) -> dict[str, Any]:
    T, S = captured.shape
    shared = sorted({_shared(captured, head) for head in heads})
    made: dict[str, Any] = {
        "numRows": T,
        "numColumns": S,
        "width": captured.query.shape[-1],
        "groups": [shared.index(_shared(captured, head)) for head in heads],
        "scale": captured.scale,
        "softcap": captured.softcap,
    }
    smaller = kept > _AS_CAPTURED and 2 * len(heads) * T * S < _kept_bytes(captured, heads)
    if smaller or not captured.is_product:
        weights = torch.stack([captured.weights(head, slice(None), slice(None)) for head in heads])
        half = weights.half()
        return made | {
            "weights": _packed(half, deflate=True),
            "error": _sane(float((half.float() - weights).abs().max())),
        }
    query, key = captured.query[list(heads)], captured.key[shared]
    if query.dtype == torch.float64:
        query, key = query.float(), key.float()
    if (
        kept > _SINGLE
        and query.dtype == torch.float32
        and max(float(query.abs().max()), float(key.abs().max())) < 6e4
    ):
        query, key = query.half(), key.half()
    made |= {
        "query": _packed(query),
        "key": _packed(key),
        "normaliser": _packed(captured.normaliser[list(heads)].float()),
        "error": _error(captured, heads, query, key, made["groups"]),
    }
    begin, end = captured.spans[:, 0], captured.spans[:, 1]
    if bool((begin != 0).any()) or bool((end != S).any()):
        made["spans"] = _packed(captured.spans.int(), deflate=True)
    if captured.relative is not None:
        made["bias"] = _packed(captured.relative[list(heads)].float(), deflate=True)
    if pyramids and T * S > WHOLE:
        built = {} if pyramids is True else pyramids
        made["pyramids"] = {
            str(place): _pyramid(captured, head, built.get((captured.name, head)))
            for place, head in enumerate(heads)
        }
    return made


def _error(
    captured: Captured, heads: Sequence[int], query: Tensor, key: Tensor, groups: Sequence[int]
) -> float:
    """Measure how far weights from what is packed are from the captured ones, over some rows of each head."""
    T, S = captured.shape
    rows = torch.linspace(0, T - 1, min(T, _PROBED)).long()
    place = torch.arange(S)
    seen = (place >= captured.spans[rows, :1]) & (place < captured.spans[rows, 1:])
    found: list[float] = []
    for k, head in enumerate(heads):
        scores = captured.scale * (query[k, rows].double() @ key[groups[k]].double().T)
        if captured.softcap is not None:
            scores = captured.softcap * torch.tanh(scores / captured.softcap)
        if captured.relative is not None:
            scores += captured.relative[head][place - rows[:, None] + T - 1]
        total = captured.normaliser[head, rows, None].double()
        again = torch.where(seen & (total > -math.inf), (scores - total).exp(), 0.0)
        found.append(float((again - captured.weights(head, rows, slice(None))).abs().max()))
    return _sane(worst_of(found))


def _sane(error: float) -> float:
    return float(f"{error:.1e}") if math.isfinite(error) else 1.0


def _pyramid(captured: Captured, head: int, built: Pyramid | None) -> dict[str, Any]:
    """Give the finest level that is drawn without queries and keys; coarser ones follow from it."""
    longest = max(captured.shape)
    pyramid = built or Pyramid([(captured, head)])
    pyramid.build()
    cell = 2 ** max(1, math.ceil(math.log2(longest / FINEST)))
    side = math.ceil(longest / cell)
    kinds: tuple[Kind, ...] = ("mean", "max")
    levels = {kind: pyramid.window(cell=cell, rows=side, columns=side, kind=kind).values for kind in kinds}
    return {"cell": cell, **{kind: _logarithmic(values) for kind, values in levels.items()}}


def _logarithmic(values: Tensor) -> dict[str, Any]:
    """Pack positive numbers as a byte each: zero, or one of 255 steps between the logarithms of least and largest."""
    array = values.numpy()
    some = array[array > 1e-12]
    low, high = (float(np.log(some.min())), float(np.log(some.max()))) if len(some) else (-1.0, 0.0)
    high = max(high, low + 1e-6)
    with np.errstate(divide="ignore"):
        steps = 1 + np.rint(254 * (np.log(array) - low) / (high - low))
    codes = np.where(array > 1e-12, np.clip(steps, 1, 255), 0).astype(np.uint8)
    return {"dtype": "log8", "range": [low, high], **_encoded(codes.tobytes(), deflate=True)}


_NAMES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.int32: "i32"}


def _packed(values: Tensor, *, deflate: bool = False) -> dict[str, Any]:
    name = _NAMES[values.dtype]
    values = values.detach().cpu().contiguous()
    array = (values.view(torch.int16) if values.dtype == torch.bfloat16 else values).numpy()
    return {"dtype": name, **_encoded(array.astype(array.dtype.newbyteorder("<")).tobytes(), deflate=deflate)}


def _encoded(raw: bytes, *, deflate: bool) -> dict[str, Any]:
    if deflate:
        small = zlib.compress(raw, 6)
        if len(small) < 0.9 * len(raw):
            return {"data": base64.b64encode(small).decode(), "deflated": True}
    return {"data": base64.b64encode(raw).decode()}
