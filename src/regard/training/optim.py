"""The optimizers, torch's: which parameters each one takes, and their state as named tensors."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from regard.errors import CheckpointError
from regard.training.config import TrainConfig
from regard.training.muon import BatchedMuon

__all__ = [
    "hidden_matrices",
    "layer_scales",
    "make_optimizers",
    "optimizer_tensors",
    "restore_optimizers",
    "set_learning_rate",
]


_BLOCK = re.compile(r"(stack|encoder|decoder)\.blocks\.(\d+)\.")
# A score of which tag follows which is one number, which Adam moves by the rate itself; a logit is a sum over as many
# weights as the model is wide, all of which move. At one rate the scores would not get anywhere (docs/log.md).
_TRANSITIONS, _TRANSITIONS_RATE = "head.transitions.", 10.0
_BELOW_BLOCKS = re.compile(r"\w*embedding\.|\w+\.(position|window_position|norm_in)\.")


class _AdamW(AdamW):
    """torch's own; but its decorators import torch's compiler, which takes more than a second, to switch it off."""

    add_param_group = inspect.unwrap(AdamW.add_param_group)
    step = torch.no_grad()(inspect.unwrap(AdamW.step))


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[Optimizer]:
    """Give the run's optimizers; together they hold every trainable parameter once.

    Weight decay is for matrices. Vectors (norms, biases) have none: pulling a norm's gain to zero scales the
    layer away. Embeddings have none either: the row of a rare word would decay at every step and learn at
    few.

    Muon takes the hidden matrices and AdamW the rest. Its update is scaled to the size of AdamW's, so that
    one learning rate and one weight decay serve both. It costs about twenty products of the smaller side per
    matrix and step, whatever the batch, so it pays when a step holds many more tokens than the model is wide.

    With a `layer_decay` below 1 each group of parameters has a `scale` of its own, see `layer_scales`. Scores of which
    tag follows which learn ten times as fast as the rest of the head.

    Source: "Muon is Scalable for LLM Training", section 2.2, for the scale.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert named, "a model without trainable parameters"
    hidden = hidden_matrices(model)
    decayed = hidden | _other_matrices(model)
    scales = layer_scales(named, config.layer_decay)
    scales |= {n: s * _TRANSITIONS_RATE for n, s in scales.items() if n.startswith(_TRANSITIONS)}
    optimizers: list[Optimizer] = []
    rest = dict(named)
    if config.optimizer == "muon" and hidden:
        matrices = {name: rest.pop(name) for name in sorted(hidden)}
        optimizers.append(
            BatchedMuon(
                _groups(matrices, scales), lr=config.lr, weight_decay=config.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )  # fmt: skip
    groups = [
        *_groups({n: p for n, p in rest.items() if n in decayed}, scales, weight_decay=config.weight_decay),
        *_groups({n: p for n, p in rest.items() if n not in decayed}, scales, weight_decay=0.0),
    ]
    if groups:
        fused = next(iter(named.values())).device.type in ("cpu", "cuda")
        betas = (config.beta1, config.beta2)
        optimizers.append(_AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=fused))
    return optimizers


def _groups(
    parameters: Mapping[str, nn.Parameter], scales: Mapping[str, float], **settings: float
) -> list[dict[str, Any]]:
    """Put parameters of one scale together, the fastest first."""
    found = sorted({scales[name] for name in parameters}, reverse=True)
    return [
        {"params": [p for name, p in parameters.items() if scales[name] == scale], "scale": scale, **settings}
        for scale in found
    ]


def layer_scales(names: Iterable[str], decay: float) -> dict[str, float]:
    """Give what each parameter's learning rate is multiplied with: `decay` once for every layer above it.

    The head and the last norm learn at the full rate, the last block at `decay` of it, the embeddings slowest. The
    decoder of an encoder-decoder stands above its encoder.
    Source: Howard and Ruder 2018, arXiv:1801.06146, section 3.2; by layers of a Transformer: ELECTRA, appendix B.
    """
    names = list(names)
    if decay == 1:
        return dict.fromkeys(names, 1.0)
    blocks = {name: (m[1], int(m[2])) for name in names if (m := _BLOCK.match(name))}
    sizes = {stack: 1 + max(i for s, i in blocks.values() if s == stack) for stack, _ in blocks.values()}
    below = {"stack": 0, "encoder": 0, "decoder": sizes.get("encoder", 0)}
    top = sum(sizes.values()) + 1

    def depth(name: str) -> int:
        if name in blocks:
            stack, number = blocks[name]
            return below[stack] + number + 1
        return 0 if _BELOW_BLOCKS.match(name) else top

    return {name: decay ** (top - depth(name)) for name in names}


def hidden_matrices(model: nn.Module) -> set[str]:
    """Name the 2-D weights between the embeddings and the output head, neither of which is among them.

    A head is known by its name (`head`, `output`, ...) at the top of the model, or by having as many rows or
    columns as the vocabulary has words. Tied weights are an embedding.
    """
    return {name for name, p, at_edge in _matrices(model) if not at_edge}


def _other_matrices(model: nn.Module) -> set[str]:
    """Name the 2-D weights of output heads of their own; embeddings, tied ones too, aren't among them."""
    embeddings = _embeddings(model)
    return {name for name, p, at_edge in _matrices(model) if at_edge and id(p) not in embeddings}


def _embeddings(model: nn.Module) -> set[int]:
    return {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}


def _matrices(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    embeddings = _embeddings(model)
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", None)
    for name, p in model.named_parameters():
        if p.requires_grad and p.ndim >= 2:
            first = name.split(".")[0]
            is_head = first.endswith(("head", "output", "classifier")) or vocabulary in p.shape
            yield name, p, id(p) in embeddings or is_head or p.ndim > 2


def set_learning_rate(optimizers: Sequence[Optimizer], lr: float) -> None:
    """Set the learning rate of the next step; a group with a scale gets its part of it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("scale", 1.0)


def optimizer_tensors(model: nn.Module, optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """Give all optimizer state as tensors named `parameter::entry`; nothing else in it changes during a run."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"{names[id(p)]}::{entry}": value
        for optimizer in optimizers
        for p, state in optimizer.state.items()
        for entry, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizers(
    model: nn.Module, optimizers: Sequence[Optimizer], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave, into optimizers that have taken no step.

    Raises:
        CheckpointError: a tensor belongs to no parameter of this model, or has another shape.
    """
    owners = {id(p): o for o in optimizers for group in o.param_groups for p in group["params"]}
    named = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, entry = key.rpartition("::")
        p = named.get(name)
        if p is None or id(p) not in owners:
            raise CheckpointError(
                f"the saved optimizer state is of another model: it has {key!r}, this one has no {name!r}."
            )
        if value.dim() and value.shape != p.shape:
            raise CheckpointError(
                f"the saved optimizer state {key!r} has shape {tuple(value.shape)}; this model's is {tuple(p.shape)}."
            )
        # A fused AdamW counts its steps on the parameter's device, any other on the CPU.
        fused = any(group.get("fused") for group in owners[id(p)].param_groups)
        device = p.device if value.dim() or fused else torch.device("cpu")
        owners[id(p)].state[p][entry] = value.to(device, copy=True)
