"""The instructions of a stack of blocks for the kernel, nn/native/step.c.

The blocks are walked in the order of `Block.forward`, and each thing that they do becomes an instruction. What can't be
said (an adapter, another kind of layer) raises UnsaidError.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import torch
from torch import Tensor, nn

from regard.nn.attention import Attention
from regard.nn.block import Block
from regard.nn.layers import FeedForward, RMSNorm
from regard.nn.packed import LINEAR, PackedLinear, Product, product_of

__all__ = ["CacheAt", "Instruction", "Pass", "UnsaidError", "View", "Writer"]

_ROUND, _PRODUCT, _LAYER_NORM, _RMS_NORM, _ADD, _ATTEND = range(6)
_ACTIVATIONS = {"relu": 1, "gelu": 2, "gelu_tanh": 3, "silu": 4, "relu2": 5}
_MOST = 256  # numbers of a head


def _fields(kind: Any, *names: str) -> tuple[tuple[str, Any], ...]:
    return tuple((name, kind) for name in names)


class CacheAt(ctypes.Structure):
    """Tell where the keys and values of a layer lie."""

    _fields_ = (
        *_fields(ctypes.c_void_p, "keys", "values"),
        *_fields(ctypes.c_int64, "text_step", "head_step", "slot_step", "first", "is_half"),
    )

    def point(self, keys: Tensor, values: Tensor, first: int) -> None:
        """Point to (B, G, C, K) each, whose first slot is `first`."""
        assert keys.stride() == values.stride() and keys.stride(3) == 1
        self.keys, self.values, self.first = keys.data_ptr(), values.data_ptr(), first
        self.text_step, self.head_step, self.slot_step = keys.stride()[:3]
        self.is_half = keys.dtype == torch.bfloat16


class View(ctypes.Structure):
    """Tell what attention knows of a pass; one for all layers that see alike."""

    _fields_ = (
        *_fields(ctypes.c_void_p, "allowed", "cosines", "sines", "bias"),
        *_fields(ctypes.c_int64, "allowed_step", "turn_step", "bias_step", "bias_rows", "bias_columns"),
        *_fields(ctypes.c_int64, "keys", "window", "causal"),
    )


class Instruction(ctypes.Structure):
    """Say one thing to do."""

    _fields_ = (
        *_fields(ctypes.c_int32, "kind", "sync"),
        ("product", Product),
        *_fields(ctypes.c_void_p, "input", "key", "value", "query_gain", "key_gain", "cache", "view"),
        *_fields(ctypes.c_int64, "heads", "groups", "size"),
        *_fields(ctypes.c_float, "eps", "gain_offset", "scale", "softcap", "key_eps", "key_gain_offset"),
    )


class Pass(ctypes.Structure):
    """Say how many tokens of how many texts pass."""

    _fields_ = (
        *_fields(ctypes.c_int64, "batch", "fresh", "start", "threads"),
        *_fields(ctypes.c_void_p, "starts", "room"),
    )


class UnsaidError(Exception):
    """There is no instruction for this."""


class Writer:
    """Write down the instructions of blocks, and make the room between them.

    Attributes:
        rows: how many tokens a pass has at most.
        list: the instructions so far.
        kept: what they point to, which must live as long.
        rounded: bits and columns of what is rounded before it is multiplied.
        x: (rows, D), what goes in, and what goes through the blocks.
    """

    def __init__(self, rows: int, width: int, *, causal: bool) -> None:
        self.rows, self._width, self._causal = rows, width, causal
        self.list: list[Instruction] = []
        self.kept: list[object] = []
        self.rounded = {(32, 1)}
        self._held: tuple[int, int] | None = None  # what is rounded at present, and to how many bits
        self._rooms: dict[tuple[str, int], Tensor] = {}
        self.x, self._normed, self._aside = (self.room(part, width) for part in ("x", "normed", "aside"))

    def block(self, block: Block, view: View, cross_view: View, own: CacheAt, cross: CacheAt) -> None:
        """Write a block down, whose layers see by these views and keep keys and values in these places."""
        x, normed = self.x, self._normed

        def attend(y: Tensor, out: Tensor, plus: Tensor | None) -> None:
            self._attention(block.attention, y, out, plus, view, own)

        def look_up(y: Tensor, out: Tensor, plus: Tensor | None) -> None:
            assert block.cross is not None
            self._attention(block.cross, y, out, plus, cross_view, cross, memory=True)

        def transform(y: Tensor, out: Tensor, plus: Tensor | None) -> None:
            self._feed_forward(block.feed_forward, y, out, plus)

        if block.placement == "parallel":
            y = self.norm(block.attention_norm, x, normed)
            if y is x:
                raise UnsaidError
            for sublayer in (attend, transform, *([look_up] if block.cross is not None else [])):
                sublayer(y, x, x)
            return
        steps = [(attend, block.attention_norm, block.attention_norm_out)]
        if block.cross is not None:
            steps.append((look_up, block.cross_norm, block.cross_norm_out))
        steps.append((transform, block.feed_forward_norm, block.feed_forward_norm_out))
        for sublayer, norm, norm_out in steps:
            if block.placement == "post":
                sublayer(x, self._aside, x)
                if self.norm(norm, self._aside, x) is not x:
                    raise UnsaidError
                continue
            y = self.norm(norm, x, normed)
            if isinstance(norm_out, nn.Identity):
                sublayer(y, x, x)
            else:
                sublayer(y, self._aside, None)
                self.norm(norm_out, self._aside, self._aside)
                self._emit(_ADD, input=self._aside, out=x, columns=self._width)

    def _attention(
        self, attention: Attention, y: Tensor, out: Tensor, plus: Tensor | None, view: View, cache: CacheAt,
        *, memory: bool = False,
    ) -> None:  # fmt: skip
        heads, groups, size = attention.num_heads, attention.num_kv_heads, attention.head_size
        if size > _MOST or type(attention) is not Attention:
            raise UnsaidError
        query = self.product(attention.query, y, self.room("query", heads * size))
        key = value = None
        if not memory:
            key = self.product(attention.key, y, self.room("key", groups * size), beside=True)
            value = self.product(attention.value, y, self.room("value", groups * size), beside=True)
            if not self._causal:  # whole texts: keys and values stay where they are
                near, far = (x.view(1, -1, groups, size).transpose(1, 2) for x in (key, value))
                cache.point(near, far, 0)
        mixed = self.room("mixed", heads * size)
        queries, keys = (self._gain(norm, size) for norm in (attention.query_norm, attention.key_norm))
        self._emit(
            _ATTEND, input=query, out=mixed, key=key, value=value if self._causal else None, query_gain=queries[0],
            gain_offset=queries[1], eps=queries[2], key_gain=keys[0], key_gain_offset=keys[1], key_eps=keys[2],
            cache=cache, view=view, heads=heads, groups=groups, size=size, softcap=attention.softcap or 0.0,
            scale=attention.scale or 1 / math.sqrt(size),
        )  # fmt: skip
        self.product(attention.output, mixed, out, plus=plus)

    def _feed_forward(self, part: FeedForward, y: Tensor, out: Tensor, plus: Tensor | None) -> None:
        if type(part) is not FeedForward:
            raise UnsaidError
        inner = self.room("inner", part.up.out_features)
        if part.gate is None:
            self.product(part.up, y, inner, activation=part.activation)
        else:
            gate = self.product(
                part.gate, y, self.room("gate", part.gate.out_features), activation=part.activation
            )
            self.product(part.up, y, inner, times=gate)
        self.product(part.down, inner, out, plus=plus)

    def norm(self, norm: nn.Module, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Normalise, into room of the writer's own where none is given; give where the result stands."""
        out = self._normed if out is None else out
        if type(norm) is nn.Identity:
            return x
        if type(norm) is RMSNorm:
            gain, offset, eps = self._gain(norm, self._width)
            self._emit(
                _RMS_NORM, input=x, out=out, weights=gain, gain_offset=offset, eps=eps, columns=self._width
            )
        elif type(norm) is nn.LayerNorm:
            weight, bias = (None if p is None else _numbers(p, self._width) for p in (norm.weight, norm.bias))
            self._emit(
                _LAYER_NORM, input=x, out=out, weights=weight, bias=bias, eps=norm.eps, columns=self._width
            )
        else:
            raise UnsaidError
        return out

    def _gain(self, norm: nn.Module | None, width: int) -> tuple[Tensor | None, float, float]:
        if norm is None:
            return None, 0.0, 0.0
        if type(norm) is not RMSNorm:
            raise UnsaidError
        return _numbers(norm.weight, width), norm.offset, norm.eps

    def product(
        self, linear: nn.Module, x: Tensor, out: Tensor, *, activation: str | None = None, times: Tensor | None = None,
        plus: Tensor | None = None, beside: bool = False,
    ) -> Tensor:  # fmt: skip
        """Multiply; `beside` the product before, of the same numbers."""
        if type(linear) not in (*LINEAR, PackedLinear):
            raise UnsaidError
        assert isinstance(linear, nn.Linear | PackedLinear)
        packed = isinstance(linear, PackedLinear)
        weight = linear.packed if packed else linear.weight
        if type(weight) not in (Tensor, nn.Parameter) or weight.device.type != "cpu":
            raise UnsaidError
        # What was put in a layer may be of another shape than the layer says.
        sizes = linear.out_features, linear.in_features
        plain = weight.dtype in (torch.float32, torch.bfloat16) and weight.shape == sizes
        if not (packed or plain) or sizes != (out.shape[1], x.shape[1]):
            raise UnsaidError
        if linear.bias is not None:
            _numbers(linear.bias, linear.out_features)
        product, kept = product_of(linear, out)
        self.kept += kept
        if product.bits < 32 and self._held != (x.data_ptr(), product.bits):
            self._emit(_ROUND, input=x, columns=product.columns, bits=product.bits)
            beside = False
        self._held = (x.data_ptr(), product.bits)
        self.rounded.add((product.bits, product.columns))
        product.activation = _ACTIVATIONS[activation] if activation else 0
        product.times, product.plus = (None if y is None else y.data_ptr() for y in (times, plus))
        self.list.append(Instruction(kind=_PRODUCT, sync=not beside, product=product, input=x.data_ptr()))
        return out

    def _emit(self, kind: int, **given: Any) -> None:
        """Write an instruction down; tensors and structures stand for their places."""
        one = Instruction(kind=kind, sync=True)
        for name, value in given.items():
            if isinstance(value, Tensor):
                self.kept.append(value)
                value = value.data_ptr()
            elif isinstance(value, ctypes.Structure):
                self.kept.append(value)
                value = ctypes.addressof(value)
            setattr(one if hasattr(one, name) else one.product, name, value)
        self.list.append(one)
        if kind != _ROUND:
            self._held = None

    def room(self, purpose: str, width: int) -> Tensor:
        """Give room for rows of so many numbers, the same one for the same purpose: layers take turns."""
        if (purpose, width) not in self._rooms:
            made = torch.empty(self.rows, width, dtype=torch.float32, device="cpu")
            self._rooms[purpose, width] = made
            self.kept.append(made)
        return self._rooms[purpose, width]


def _numbers(parameter: Tensor, width: int) -> Tensor:
    """Give a parameter of so many numbers as the kernel reads it."""
    plain = type(parameter) in (Tensor, nn.Parameter) and parameter.device.type == "cpu"
    if not plain or parameter.shape != (width,):
        raise UnsaidError
    return parameter.detach().float().contiguous()
