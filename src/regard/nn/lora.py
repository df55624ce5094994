"""LoRA: beside a linear layer, which stays as it was, a product of two thin matrices learns what to add to it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from regard.errors import ConfigError, suggest

__all__ = ["TARGETS", "LoRALinear", "adapters", "add_lora", "merged"]

TARGETS = ("query", "key", "value", "output", "up", "gate", "down")
"""What can be adapted in each block: the projections of every attention, cross attention too, and feed-forward."""

_PLACE = re.compile(r"(?:.+\.)?blocks\.\d+\.(?:attention|cross|feed_forward)\.(\w+)")
_DOWN, _UP = ".lora_down", ".lora_up"


class LoRALinear(nn.Linear):
    """Be a linear layer with an adapter: y = x Wᵀ + b + (alpha / r) (x Aᵀ) Bᵀ.

    The paper's A (r, inputs) is `lora_down`, drawn as a linear layer's weight is; its B (outputs, r) is `lora_up`, and
    begins at zero, so that training begins with the layer as it was. W and b keep their names, and don't learn.
    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
    """

    def __init__(self, linear: nn.Linear, *, rank: int, alpha: float) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias
        self.lora_down = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.lora_up = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))
        self.scale = alpha / rank
        self.train(linear.training)

    def forward(self, input: Float[Tensor, "... D"]) -> Float[Tensor, "... E"]:  # noqa: A002 - torch's own name
        """Apply the layer and its adapter."""
        added = F.linear(F.linear(input, self.lora_down), self.lora_up)
        return F.linear(input, self.weight, self.bias) + self.scale * added


def add_lora(
    module: nn.Module, *, rank: int, alpha: float, targets: Sequence[str] = ("query", "value")
) -> list[str]:
    """Give linear layers of every block an adapter, in place, and let nothing else learn; give the layers' names.

    Fresh numbers are drawn from torch's generator.

    Args:
        module: an Encoder, a Decoder or an EncoderDecoder.
        rank: r, how many directions an adapter has.
        alpha: what an adapter's result is multiplied with, times the rank.
        targets: of TARGETS.

    Raises:
        ConfigError: a target that isn't known or that this model hasn't, or a rank that can't be.
    """
    if type(rank) is not int or not 1 <= rank <= 4096:
        raise ConfigError(f"lora={rank!r} must be a rank, a whole number from 1 to 4096.")
    if not 0 < alpha < 1e6:
        raise ConfigError(f"lora_alpha={alpha!r} must be more than 0.")
    if not targets:
        raise ConfigError(f"lora_targets is empty; name some of {', '.join(TARGETS)}.")
    for target in targets:
        if target not in TARGETS:
            hint = suggest(target, TARGETS)
            raise ConfigError(f"lora_targets: {target!r} is not one of {', '.join(TARGETS)}. {hint}".strip())
    found = {
        name: layer
        for name, layer in module.named_modules()
        if (place := _PLACE.fullmatch(name)) and place[1] in targets and isinstance(layer, nn.Linear)
    }
    if absent := [t for t in targets if not any(name.endswith(f".{t}") for name in found)]:
        raise ConfigError(
            f"lora_targets: this model's blocks have no {' and no '.join(absent)}; leave it out."
        )
    if any(isinstance(layer, LoRALinear) for layer in found.values()):
        raise ConfigError("this model has adapters already; merge them first.")
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for name, layer in found.items():
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, LoRALinear(layer, rank=rank, alpha=alpha))
    return list(found)


def adapters(weights: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Find the adapters among a model's weights: A and B by the name of the layer."""
    layers = [name.removesuffix(_DOWN) for name in weights if name.endswith(_DOWN)]
    return {layer: (weights[layer + _DOWN], weights[layer + _UP]) for layer in layers}


def merged(weights: Mapping[str, Tensor], *, alpha: float) -> dict[str, Tensor]:
    """Give the weights of the model without adapters that computes the same: W + (alpha / r) B A.

    The product is made in fp32, whatever the weights are. What has no adapter is given as it is, not copied.
    """
    plain = {name: t for name, t in weights.items() if not name.endswith((_DOWN, _UP))}
    for layer, (down, up) in adapters(weights).items():
        weight = plain[f"{layer}.weight"]
        added = alpha / down.shape[0] * (up.float() @ down.float())
        plain[f"{layer}.weight"] = (weight.float() + added).to(weight.dtype)
    return plain
