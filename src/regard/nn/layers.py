"""Norms, feed-forwards and dropout: what stands around attention in a block."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from regard.config import Activation, ModelConfig
from regard.nn.gelu import gelu_tanh
from regard.nn.linear import Linear
from regard.nn.native import is_free


class RMSNorm(nn.Module):
    """Divide by the root mean square and scale: x / sqrt(mean(x²) + eps) · (offset + weight), computed in fp32.

    Source: Zhang and Sennrich 2019, arXiv:1910.07467; an offset of 1: Gemma's code.
    """

    def __init__(self, width: int, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))
        self.eps, self.offset = eps, offset

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Normalise the last dimension."""
        wide = x.float()
        gain = self.offset + self.weight.float() if self.offset else self.weight
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps) * gain).to(x.dtype)


def make_norm(config: ModelConfig) -> nn.Module:
    """Make the norm that a configuration names, over the model's width."""
    if config.norm == "rmsnorm":
        return RMSNorm(config.width, config.norm_eps, config.norm_offset)
    # Ba et al. 2016, arXiv:1607.06450
    return nn.LayerNorm(config.width, eps=config.norm_eps, bias=config.norm_bias)


def activate(x: Float[Tensor, "..."], kind: Activation) -> Float[Tensor, "..."]:
    """Apply an activation by its name; relu2 is the square of relu (So et al. 2021, arXiv:2109.08668)."""
    match kind:
        case "relu":
            return F.relu(x)
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return gelu_tanh(x)
        case "silu":
            return F.silu(x)
        case "relu2":
            return _SquaredRelu.apply(x) if x.requires_grad and is_free() else F.relu(x).square()


class _SquaredRelu(torch.autograd.Function):
    """relu2 with a gradient of 2 relu(x), which is zero by itself where x is negative: one saved tensor, two passes."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradients[0] * positive * 2


class FeedForward(nn.Module):
    """Transform each token by itself: down(activation(up(x))), or gated: down(activation(gate(x)) · up(x)).

    Source: Vaswani et al. 2017, section 3.3; gated: Shazeer 2020, arXiv:2002.05202.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.ffn_width is not None
        bias = bool(config.ffn_bias)
        self.up = Linear(config.width, config.ffn_width, bias=bias)
        self.gate = Linear(config.width, config.ffn_width, bias=bias) if config.gated else None
        self.down = Linear(config.ffn_width, config.width, bias=bias)
        self.activation: Activation = config.activation
        self.dropout = Dropout(config.ffn_dropout)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Transform every token."""
        up = self.up(x)
        inner = (
            activate(up, self.activation)
            if self.gate is None
            else activate(self.gate(x), self.activation) * up
        )
        return self.down(self.dropout(inner))


class Dropout(nn.Module):
    """Blank each number with a probability while training, and scale the others up to keep the mean.

    On a CPU the masks are cut from random bytes, eight to a draw, where torch draws a Bernoulli number each: about
    six times faster, and dropout is else a third of a small model's training step. The probability is then rounded to
    a multiple of 1/256 and the scale fits the rounded one, so the mean stays exact. Elsewhere torch's own is fused.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Drop while training; give `x` itself otherwise."""
        if not self.training or self.probability == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.probability, training=True)
        return _ByteDropout.apply(x, min(255, max(1, round(self.probability * 256))))

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"probability={self.probability}"


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, dropped_of_256: int) -> Tensor:
        keep = random_bytes_mask(x, dropped_of_256)
        ctx.save_for_backward(keep)
        ctx.scale = 256 / (256 - dropped_of_256)  # type: ignore[attr-defined]
        return torch.ops.aten.native_dropout_backward(x, keep, ctx.scale)  # type: ignore[attr-defined] # x · keep · scale in one pass

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return torch.ops.aten.native_dropout_backward(gradients[0], keep, ctx.scale), None  # type: ignore[attr-defined]


def random_bytes_mask(x: Tensor, dropped_of_256: int) -> Bool[Tensor, "..."]:
    """Draw a mask of x's shape from torch's generator; each entry is False with probability dropped_of_256 / 256."""
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    return (words.view(torch.uint8)[: x.numel()] >= dropped_of_256).view(x.shape)
