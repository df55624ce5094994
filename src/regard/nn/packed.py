"""Linear layers whose weights are kept in eight or four bits: a text is written as fast as memory gives them.

Each new token reads every weight once and does little with it, so that half the bytes are nearly twice the speed. What
rounding costs is bounded by each scale: half a step, which is 1/127 of a row's largest weight with eight bits, and
about 1/8 of the largest of each 32 with four. With a kernel (`regard.nn.native`) what is multiplied is rounded to
eight bits as well; without one the weights are unpacked for the time of the product.
"""

from __future__ import annotations

import ctypes
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from regard.errors import ConfigError
from regard.nn.linear import Linear
from regard.nn.native import is_free, load

__all__ = [
    "BITS",
    "LINEAR",
    "Bits",
    "PackedLinear",
    "Product",
    "is_packed",
    "pack",
    "product_of",
    "refuse_packed",
]

Bits = Literal[8, 4]
LINEAR = (nn.Linear, Linear)
"""What can be packed, and said to the kernel: no layer with more to it."""
BITS: dict[str, Bits] = {"int8": 8, "int4": 4}
"""Of each precision of packed weights, by its name."""
_LANES, _SPAN = 16, 32
_TRIALS = 12  # scales that are tried for each 32 weights of four bits


class Product(ctypes.Structure):
    """Describe a product to the kernel; the fields are those of `Product` in native/products.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "scales", "bias", "times", "plus", "out")),
        *((name, ctypes.c_int64) for name in ("width", "columns", "out_step")),
        ("bits", ctypes.c_int32),
        ("activation", ctypes.c_int32),
    )


class PackedLinear(nn.Module):
    """Stand in for a Linear whose weights don't change any more.

    Attributes:
        bits: 8 or 4.
        packed: uint8 (N / 16, K / 4, 16, 4) or (N / 16, K / 32, 4, 16, 4), N and K as native/products.h says.
        scales: float32 (N,), or bfloat16 (N / 16, K / 32, 16); N filled up with zeros to a multiple of 16.
    """

    def __init__(self, linear: nn.Linear, bits: Bits) -> None:
        super().__init__()
        self.bits, self.out_features, self.in_features = bits, linear.out_features, linear.in_features
        assert self.in_features % _SPAN == 0
        self.packed: Tensor
        self.scales: Tensor
        weight = linear.weight.detach()
        rounded = (_pack8 if bits == 8 else _pack4)(F.pad(weight.float(), (0, 0, 0, -len(weight) % _LANES)))
        self.register_buffer("packed", rounded[0])
        self.register_buffer("scales", rounded[1])
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().float(), False)

    def forward(self, x: Float[Tensor, "... K"]) -> Float[Tensor, "... N"]:
        """Multiply; the result has x's type."""
        learns = torch.is_grad_enabled() and x.requires_grad
        library = None if learns or x.device.type != "cpu" or not is_free() else load("step")
        if library is None:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return F.linear(x, self.weight.to(x.dtype), bias)
        assert x.shape[-1] == self.in_features, f"{x.shape[-1]} numbers for {self.in_features}"
        flat = x.reshape(-1, self.in_features).float().contiguous()
        out = torch.empty(*x.shape[:-1], self.out_features, dtype=torch.float32, device="cpu")
        product, _kept = product_of(self, out)
        rows, threads = ctypes.c_int64(len(flat)), ctypes.c_int64(torch.get_num_threads())
        if library.multiply(ctypes.byref(product), ctypes.c_void_p(flat.data_ptr()), rows, threads):
            raise MemoryError("no memory for a product")
        return out.to(x.dtype)

    @property
    def weight(self) -> Float[Tensor, "N K"]:
        """Unpack the weights, as they were rounded."""
        return (_unpack8 if self.bits == 8 else _unpack4)(self.packed, self.scales)[: self.out_features]

    def extra_repr(self) -> str:
        """Show the sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}"


def product_of(linear: nn.Linear | PackedLinear, out: Tensor) -> tuple[Product, list[Tensor]]:
    """Describe a layer's product to the kernel, and give the tensors that must live as long.

    Args:
        linear: one in float32, in bfloat16 or packed.
        out: where results go, (rows, N) float32; its rows may be farther apart.
    """
    scales = None
    if isinstance(linear, PackedLinear):
        weights, scales, bits = linear.packed, linear.scales, int(linear.bits)
    else:
        weights = linear.weight.detach().contiguous()
        bits = 8 * weights.element_size()
    bias = None if linear.bias is None else linear.bias.detach().float().contiguous()
    product = Product(
        weights=weights.data_ptr(), scales=None if scales is None else scales.data_ptr(),
        bias=None if bias is None else bias.data_ptr(), out=out.data_ptr(), width=linear.out_features,
        columns=linear.in_features, out_step=out.stride(-2) if out.ndim > 1 else linear.out_features, bits=bits,
    )  # fmt: skip
    return product, [x for x in (weights, scales, bias, out) if x is not None]


def pack(module: nn.Module, bits: Bits) -> None:
    """Pack, in place, the linear layers of a model's blocks and the one that scores tokens; the rest becomes bfloat16.

    A layer whose inputs are no multiple of 32 stays as it is.

    Raises:
        ConfigError: the model has no blocks of linear layers: it is recurrent.
    """
    if not any(type(part) in LINEAR and "blocks." in name for name, part in module.named_modules()):
        raise ConfigError(
            f"int{bits} is for a Transformer's blocks, and this model has none; load it as fp32 or bf16."
        )
    for path, owner in list(module.named_modules()):
        for name, child in list(owner.named_children()):
            scores = path == "head" and name == "output" and getattr(owner, "kind", None) == "lm"
            if type(child) in LINEAR and child.in_features % _SPAN == 0 and ("blocks." in path or scores):
                setattr(owner, name, PackedLinear(child, bits))
    for owner in module.modules():
        if not isinstance(owner, PackedLinear):
            for part in owner.parameters(recurse=False):
                part.data = part.data.bfloat16()


def is_packed(module: nn.Module) -> bool:
    """Tell whether any layer of a model is packed."""
    return any(isinstance(part, PackedLinear) for part in module.modules())


def refuse_packed(module: nn.Module) -> None:
    """Refuse a model any layer of which is packed.

    Raises:
        ConfigError: what was rounded can't be saved as if it were the model.
    """
    if is_packed(module):
        raise ConfigError("the weights of this model are packed; load it as fp32 or bf16 to save it.")


def _pack8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scales = (weight.abs().amax(1) / 127).clamp(min=1e-30)
    rounded = (weight / scales[:, None]).round_().add_(128).to(torch.uint8)
    fours = rounded.unflatten(0, (-1, _LANES)).unflatten(2, (-1, 4))  # (N / 16, 16, K / 4, 4)
    return fours.transpose(1, 2).contiguous(), scales


def _unpack8(packed: Tensor, scales: Tensor) -> Tensor:
    rounded = packed.transpose(1, 2).flatten(2).flatten(0, 1)
    return rounded.float().sub(128) * scales[:, None]


def _pack4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Choose for each 32 weights of a row the scale that leaves the least error, of some near the largest weight's."""
    spans = weight.unflatten(1, (-1, _SPAN))  # (N, K / 32, 32)
    largest = spans.gather(2, spans.abs().argmax(2, keepdim=True))
    best, error = torch.zeros_like(largest), torch.full_like(largest, torch.inf)
    for trial in range(_TRIALS):
        scale = (largest / -(8 - trial / 4)).bfloat16().float()  # the largest becomes -8, or is cut off at it
        found = (_rounded4(spans, scale) * scale - spans).square().sum(2, keepdim=True)
        best, error = torch.where(found < error, scale, best), torch.minimum(found, error)
    best = torch.where(largest.isfinite(), best, torch.nan)
    nibbles = (_rounded4(spans, best) + 8).nan_to_num().to(torch.uint8)
    both = nibbles[..., : _SPAN // 2] | nibbles[..., _SPAN // 2 :] << 4  # (N, K / 32, 16)
    strips = both.unflatten(0, (-1, _LANES)).unflatten(3, (4, 4))  # (N / 16, 16, K / 32, 4, 4)
    scales = best.squeeze(2).unflatten(0, (-1, _LANES)).transpose(1, 2)  # (N / 16, K / 32, 16)
    return strips.permute(0, 2, 3, 1, 4).contiguous(), scales.bfloat16().contiguous()


def _rounded4(spans: Tensor, scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0.0, spans / scale).round_().clamp_(-8, 7)


def _unpack4(packed: Tensor, scales: Tensor) -> Tensor:
    both = packed.permute(0, 3, 1, 2, 4).flatten(3).flatten(0, 1)  # (N, K / 32, 16)
    nibbles = torch.cat((both & 15, both >> 4), 2).float() - 8
    return (nibbles * scales.float().transpose(1, 2).flatten(0, 1)[..., None]).flatten(1)
