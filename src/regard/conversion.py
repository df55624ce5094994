"""Turn a checkpoint into one of another layout, and prove that it says the same."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from regard.checkpoints.header import listed
from regard.config import ModelConfig
from regard.errors import ConfigError
from regard.model import Model, load

__all__ = ["Conversion", "convert", "largest_difference"]

_TEXTS, _LENGTH = 2, 24


@dataclass(frozen=True)
class Conversion:
    """Hold what a conversion wrote.

    Attributes:
        folder: the new model directory.
        read, written: the families of the files; None: ours.
        weights: how many there are.
        difference: the largest difference of a logit between the model read, in fp32, and what was written, over
            random texts.
        scale: the largest logit, to compare it with.
    """

    folder: Path
    read: str | None
    written: str | None
    weights: int
    difference: float
    scale: float


def convert(
    source: str | Path, target: str | Path, *, family: str | None = None, precision: str = "fp32",
    revision: str | None = None, offline: bool | None = None,
) -> Conversion:  # fmt: skip
    """Load a checkpoint, write it anew, load what was written, and compare their logits.

    Args:
        source: a folder, a file or a hub id.
        target: the new folder, which must be empty or not there.
        family: the published family to write; None: the one that was read, or the first that has such a model.
        precision: of the weights that are written: fp32, bf16 or fp16.
        revision: of a hub id: a branch, a tag or a commit.
        offline: look for a hub id in the cache only.

    Raises:
        ConfigError: the target isn't empty, or no such family has this model.
        CheckpointError: the source can't be read or the target not be written.
    """
    folder = Path(target)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} isn't empty; name another folder.")
    model = load(source, revision=revision, offline=offline)
    rounded = model
    if precision != "fp32":
        rounded = load(source, precision=precision, revision=revision, offline=offline)
        _warn_of_overflow(model, rounded, precision)
    written = rounded.save(folder, family=family)
    difference, scale = largest_difference(model, load(folder))
    return Conversion(folder, model.family, written, model.config.num_parameters(), difference, scale)


def _warn_of_overflow(model: Model, rounded: Model, precision: str) -> None:
    """Name the weights of which some values are too large for a precision."""
    exact = model.module.state_dict()
    lost = [
        name for name, tensor in rounded.module.state_dict().items()
        if bool((tensor.isinf() & exact[name].isfinite()).any())
    ]  # fmt: skip
    if lost:
        warnings.warn(
            f"values of {listed(lost)} are too large for {precision} and became infinite; choose bf16 or fp32.",
            stacklevel=3,
        )


@torch.no_grad()
def largest_difference(one: Model, other: Model, *, seed: int = 0) -> tuple[float, float]:
    """Compare two models' outputs on random texts: the largest difference, and the first one's largest value."""
    config = one.config
    ids = _random_ids(config, seed)
    target = (
        _random_ids(config, seed + 1) if config.kind == "encoder-decoder" and config.head == "lm" else None
    )
    outputs = []
    for model in (one, other):
        given = (ids,) if target is None else (ids, target)
        outputs.append(model.module(*given).float())
    return float((outputs[0] - outputs[1]).abs().max()), float(outputs[0].abs().max())


def _random_ids(config: ModelConfig, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (_TEXTS, min(_LENGTH, config.context)), generator=draw)
