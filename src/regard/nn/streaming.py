"""Attention with each row's normaliser and without the matrix: what a look at any length is made of.

A weight is exp(score - normaliser of its row), so queries, keys and one number a row and head hold all of them.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from regard.nn.additive import Additive
from regard.nn.attention import Attend
from regard.nn.masks import Mask
from regard.nn.native import long_attention
from regard.nn.positions import Bias
from regard.nn.taps import tap

__all__ = ["attend_with_normaliser", "last_weights", "scores_of"]

_AT_ONCE = 2**26  # scores held at once: 256 MiB
_LONG = 2**28  # scores of a head from which on a layer takes long enough to be told about in parts
_OWN = 2**20  # scores of a head from which on our own kernel is worth its threads
_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def attend_with_normaliser(
    attend: Attend,
    query: Float[Tensor, "B H T K"],
    key: Float[Tensor, "B G S K"],
    value: Float[Tensor, "B G S K"],
    mask: Mask,
    bias: Bias | Tensor | None,
) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H T"]]:
    """Give the mixed values, and the log-sum-exp of each row's scores: -inf where a query may attend to nothing.

    Torch's fused kernel for the CPU and our own know both, where everything or the plain triangle is allowed. All else
    (caps, biases, windows, padding, documents, GPUs) goes through blocks of rows, each against the keys it may see.
    """
    num_queries, num_keys = query.shape[2], key.shape[2]
    causal = mask.is_plain_causal(num_queries, num_keys)
    plain = bias is None and not attend.softcap and not isinstance(attend, Additive)
    if query.device.type == "cpu" and (causal or mask.is_empty) and plain:
        return _in_heads(attend, query, key, value, causal=causal)
    return _in_rows(attend, query, key, value, mask.spans(num_queries, num_keys, query.device), bias)


def scores_of(attend: Attend, query: Float[Tensor, "... R K"], key: Float[Tensor, "... C K"]) -> Tensor:
    """Give the scaled and capped scores in single precision (double where given), (..., R, C); no bias, no mask."""
    if isinstance(attend, Additive):
        return attend.scores(query, key)
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    scale = attend.scale or 1 / math.sqrt(query.shape[-1])
    scores = (query.to(wide) * scale) @ key.to(wide).transpose(-1, -2)
    return scores if not attend.softcap else scores.div_(attend.softcap).tanh_().mul_(attend.softcap)


def last_weights(
    attend: Attend, query: Float[Tensor, "B H T K"], key: Float[Tensor, "B G S K"], mask: Mask,
    bias: Bias | Tensor | None, count: int,
) -> Float[Tensor, "B H R S"]:  # fmt: skip
    """Give the weights of the last `count` queries; all zero for one that may attend to nothing."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    rows = slice(num_queries - count, num_queries)
    spans = mask.spans(num_queries, num_keys, query.device)[: len(query), rows]
    scores = scores_of(attend, query[:, :, rows], key.repeat_interleave(query.shape[1] // key.shape[1], 1))
    if bias is not None:
        scores += bias.part(rows, slice(0, num_keys)) if isinstance(bias, Bias) else bias[..., rows, :]
    place = torch.arange(num_keys, device=query.device)
    allowed = ((place >= spans[..., :1]) & (place < spans[..., 1:]))[:, None]  # (B or 1, 1, R, S)
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill_(~allowed, lowest).softmax(-1).masked_fill(~allowed, 0.0)


def _in_heads(
    attend: Attend, query: Tensor, key: Tensor, value: Tensor, *, causal: bool
) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H T"]]:
    """Attend with torch's kernel: all heads at once, or of a long text as many as there are threads.

    A text in bfloat16 that isn't short goes to our own kernel where the processor has what that is made of.
    """
    heads, shared = query.shape[1], key.shape[1]
    groups, many, size = heads // shared, query.shape[2] * key.shape[2] > _LONG, heads
    if many:
        size = torch.get_num_threads()
        size = size // groups * groups or size  # whole groups, or parts of one
    own = long_attention(query, key, value) if query.shape[2] * key.shape[2] >= _OWN else None
    scale = attend.scale or 1 / math.sqrt(query.shape[-1])
    found = []
    start = 0
    while start < heads:
        end = min(start + size, heads if size >= groups else start // groups * groups + groups)
        some = slice(start // groups, -(-end // groups))
        part = query[:, start:end], key[:, some], value[:, some]
        mixed, normaliser = own(*part, scale, causal) if own else _FLASH(*part, 0.0, causal, scale=scale)
        found.append((tap(f"{attend.name}.part", mixed) if many else mixed, normaliser))
        start = end
    if len(found) == 1:
        return found[0]
    return torch.cat([mixed for mixed, _ in found], 1), torch.cat([normaliser for _, normaliser in found], 1)


def _in_rows(
    attend: Attend, query: Tensor, key: Tensor, value: Tensor, spans: Int[Tensor, "B_or_1 T 2"],
    bias: Bias | Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    batch, heads, length, _ = query.shape
    groups = heads // key.shape[1]
    mixed = torch.zeros_like(query)
    normaliser = torch.full((batch, heads, length), -math.inf, device=query.device)
    start = 0
    while start < length:
        stop = _block_end(spans, start, batch * heads)
        rows = slice(start, stop)
        some = spans[:, rows]
        begin, end = int(some[..., 0].min()), int(some[..., 1].max())
        start = stop
        if begin >= end:
            continue
        columns = slice(begin, end)
        near, far = (x[:, :, columns].repeat_interleave(groups, 1) for x in (key, value))
        scores = scores_of(attend, query[:, :, rows], near)
        if bias is not None:
            part = bias.part(rows, columns) if isinstance(bias, Bias) else bias[..., rows, columns]
            scores += part
        place = torch.arange(begin, end, device=query.device)
        allowed = (place >= some[..., :1]) & (place < some[..., 1:])  # (B or 1, R, C)
        scores.masked_fill_(~allowed[:, None], -math.inf)
        normaliser[:, :, rows] = total = scores.logsumexp(-1)
        weights = scores.sub_(total.masked_fill(total == -math.inf, 0.0)[..., None]).exp_()
        part = weights.to(value.dtype) @ far
        mixed[:, :, rows] = tap(f"{attend.name}.part", part) if length * key.shape[2] > _LONG else part
    return mixed, normaliser


def _block_end(spans: Tensor, start: int, heads: int) -> int:
    """Choose so many rows that their scores stay within the limit."""
    length = spans.shape[1]
    size = length - start
    while size > 1:
        some = spans[:, start : start + size]
        wide = int(some[..., 1].max() - some[..., 0].min())
        if heads * size * wide <= _AT_ONCE:
            break
        size = max(1, min(size - 1, _AT_ONCE // max(1, heads * wide), size // 2 + 1))
    return start + size
