"""Tensors of a file in the place of a model's empty parameters, and what is done with them when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from regard.checkpoints.files import is_finite
from regard.checkpoints.header import listed
from regard.nn.native import half_of_turned

__all__ = ["NoDraws", "assign", "check_when_used", "laid_out"]


class NoDraws(TorchFunctionMode):
    """Leave out the drawing of fresh weights: there is no memory for them, and torch would import a compiler for it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def laid_out(tensor: Tensor, device: str | torch.device, dtype: torch.dtype) -> Tensor:
    """Give a tensor on a device, in a type: itself where it is so already, else a copy whose rows lie one by one."""
    is_half = torch.device(device).type == "cpu" and dtype == torch.bfloat16
    if is_half and (turned := half_of_turned(tensor)) is not None:
        return turned
    there = tensor.to(device, dtype)
    return there if there is tensor else there.contiguous()


def check_when_used(
    module: nn.Module, weights: Mapping[str, Tensor], folder: Path, warn: Callable[[str], None]
) -> None:
    """Name tensors with NaN or infinite values in a warning before the first stack of blocks runs.

    Then, too, mapped weights that were stored transposed are laid out as they are used; until then they take no memory.
    """
    hooks: list[RemovableHandle] = []

    def check(stack: nn.Module, inputs: Any) -> None:
        if hooks:
            for hook in hooks:
                hook.remove()
            hooks.clear()
            bad = [name for name, tensor in weights.items() if not is_finite(tensor)]
            if bad:
                warn(f"{folder} holds NaN or infinite weights in {listed(bad)}; results will be of no use.")
            with torch.inference_mode(False):  # what is made stays a tensor that can learn
                for parameter in module.parameters():
                    parameter.data = parameter.data.contiguous()

    check.runs_once = True  # type: ignore[attr-defined] # a program of the stack calls it, and doesn't stand aside
    hooks += [part.register_forward_pre_hook(check) for part in module.modules() if hasattr(part, "blocks")]


def assign(module: nn.Module, placed: Mapping[int, Tensor]) -> None:
    """Put tensors in the place of a module's empty parameters, by their identity; tied ones stay tied."""
    made: dict[int, nn.Parameter] = {}
    for owner in module.modules():
        for leaf, parameter in list(owner._parameters.items()):
            if parameter is not None:
                key = id(parameter)
                if key not in made:
                    made[key] = nn.Parameter(placed[key], requires_grad=parameter.requires_grad)
                owner._parameters[leaf] = made[key]
