"""A look at every checkpoint of a run, from the first that was kept to the last: a head can be watched as it forms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from regard.checkpoints.files import load_tensors
from regard.data.tokenizers import Tokenizer
from regard.errors import CheckpointError
from regard.look.reading import Look
from regard.models.transformer import build
from regard.tasks.base import Parts
from regard.tasks.folders import need_tokenizer, read_config
from regard.tasks.looking import look
from regard.training.state import StateStore

__all__ = ["CheckpointLook", "looks"]


@dataclass(frozen=True)
class CheckpointLook:
    """Hold what the model of one step attends to.

    Attributes:
        step: of the training.
        look: at the same text as those of the other steps.
    """

    step: int
    look: Look


def looks(run: str | Path, text: str, target: str | None = None, **settings: Any) -> Iterator[CheckpointLook]:
    """Look at a text with the weights of each step that a run has kept, earliest first.

    How many there are is what `--save-every` and `--keep` left. The weights are those of the step itself, not their
    average. Give an encoder-decoder its target, so that all steps are asked the same; each writes its own otherwise.

    Args:
        run: the folder of a run.
        text: what is read.
        target: what an encoder-decoder writes.
        settings: those of `regard.tasks.looking.look`.

    Raises:
        CheckpointError: the folder is no run, has kept no checkpoints, or one is damaged.
        DataError: the text is longer than the context.
    """
    folder = Path(run)
    config = read_config(folder)
    tokenizer = need_tokenizer(Tokenizer.load(folder), folder)
    states = StateStore(folder / "checkpoints", keep=1, warn=lambda sentence: None).states()
    if not states:
        raise CheckpointError(f"{folder} has kept no checkpoints; train with --keep 10 to keep ten.")
    module = build(config).eval()
    parts = Parts(module, tokenizer, config)
    for path in reversed(states):
        weights = load_tensors(path / "model.safetensors", torch.device("cpu"), check_finite=False)
        try:
            module.load_state_dict(weights)
        except RuntimeError:
            raise CheckpointError(f"{path} doesn't fit the run's config.json.") from None
        step = int(path.name.split("-")[1].partition(".")[0])
        yield CheckpointLook(
            step, look(parts, text, target, model=f"{folder.name}, step {step:,}", **settings)
        )
