"""Train a small network in memory: what the lab's own experiments do where no files are needed.

Optimizers, schedule and precision are those of training/. Batches are a function of the seed and the step alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regard.config import ModelConfig
from regard.data.world import World
from regard.demo import SCENES, SHAPES
from regard.models.transformer import build
from regard.training.config import TrainConfig
from regard.training.optim import make_optimizers, set_learning_rate
from regard.training.precision import choose_device
from regard.training.schedule import learning_rate

__all__ = ["WorldText", "generator", "learn", "make", "on"]

_END = "<end>"


def on(device: str) -> torch.device:
    """Give the device to make everything on, as a context; "auto" is the accelerator where there is one."""
    return choose_device(device)


def make(config: ModelConfig) -> nn.Module:
    """Make a model on the device of the context."""
    return build(config).to(torch.get_default_device())


def generator(*key: int) -> torch.Generator:
    """Give a generator that follows from some whole numbers alone."""
    made = torch.Generator(torch.get_default_device())
    mixed = 0
    for number in key:
        mixed = (mixed * 1_000_003 + number + 1) % 2**63
    return made.manual_seed(mixed)


def learn(
    model: nn.Module, loss: Callable[[int], Tensor], *, steps: int, lr: float, warmup: int | None = None,
    schedule: str = "linear", at: Iterable[int] = (), look: Callable[[int], None] = lambda step: None,
) -> None:  # fmt: skip
    """Train a model with AdamW, in the precision that its weights have.

    Args:
        model: what is trained; it is in evaluation mode afterwards.
        loss: gives the loss of step 1, 2, ..., a mean.
        steps: how many.
        lr: the peak of the rate, which then falls as `schedule` says.
        warmup: steps in which it rises; None: a tenth of all.
        schedule: of `TrainConfig`.
        at: steps after which `look` is called, with the model in evaluation mode.
        look: told the step.
    """
    config = TrainConfig.from_dict(
        {"steps": steps, "lr": lr, "warmup": max(1, steps // 10) if warmup is None else warmup, "schedule": schedule}
    )  # fmt: skip
    optimizers, stops = make_optimizers(model, config), set(at)
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.train()
    for step in range(1, steps + 1):
        set_learning_rate(optimizers, learning_rate(config, step, steps))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss(step).backward()
        nn.utils.clip_grad_norm_(parameters, config.clip)
        for optimizer in optimizers:
            optimizer.step()
        if step in stops:
            model.eval()
            with torch.no_grad():
                look(step)
            model.train()
    model.eval()


@dataclass(frozen=True)
class WorldText:
    """Hold the demo's world as running text of whole words: English sentences, each with an end.

    Attributes:
        words: the vocabulary, by number; it is that of the training part, and 0 is any other word.
        train, valid: ids.
    """

    words: tuple[str, ...]
    train: Tensor
    valid: Tensor

    @classmethod
    def draw(cls, seed: int, *, train: int, valid: int) -> WorldText:
        """Write so many sentences of each part."""
        world = World(seed, SHAPES, SCENES)
        texts = {
            part: [
                word
                for example in world.examples(part, count)
                for word in (*(w.lower() for w in example.source_words), _END)
            ]
            for part, count in (("train", train), ("valid", valid))
        }
        words = ("<other>", *sorted(set(texts["train"])))
        number = {word: i for i, word in enumerate(words)}
        ids = {part: torch.tensor([number.get(word, 0) for word in text]) for part, text in texts.items()}
        return cls(words, ids["train"], ids["valid"])

    def batch(self, rows: int, length: int, draw: torch.Generator) -> Tensor:
        """Give windows (rows, length + 1) of the training part, from drawn places."""
        starts = torch.randint(len(self.train) - length, (rows,), generator=draw)
        return self.train[starts[:, None] + torch.arange(length + 1)]

    def held_out(self, rows: int, length: int) -> Tensor:
        """Give windows (rows, length + 1) of the held-out part, evenly spaced."""
        starts = torch.linspace(0, len(self.valid) - length - 1, rows).long()
        return self.valid[starts[:, None] + torch.arange(length + 1)]

    def pairs(self, rows: Tensor, scored: int) -> float:
        """Give the loss of counting, which learns nothing: nats a word of the last `scored` words of rows.

        A word's probability is the share of its pair among those of the training part that begin with the word before,
        where two more are counted as the words fall by themselves.
        """
        size = len(self.words)
        single = torch.bincount(self.train, minlength=size).double() + 0.5
        counts = torch.bincount(self.train[:-1] * size + self.train[1:], minlength=size * size).double()
        before, word = rows[:, -scored - 1 : -1], rows[:, -scored:]
        of_pair, of_first = counts[before * size + word], counts.view(size, size).sum(1)[before]
        return -float(((of_pair + 2 * single[word] / single.sum()) / (of_first + 2)).log().mean())
