"""The one dial: how large a model, and trained how, is best in so many minutes on this machine, with this data.

real steps, timed ─> for each size the tokens that it will see ─> the loss to be expected ─> the size with the least
                  ─> batch, rate, dropout, and how often to measure and to save

The rules are of the literature and of the experiments in docs/log.md; whatever is given stays as it is given.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from regard.config import ModelConfig
from regard.config_recurrent import RecurrentConfig
from regard.data.batches import Batches
from regard.models.transformer import build
from regard.tasks.base import DataSize, Task
from regard.training.config import TrainConfig
from regard.training.loss import LossFunction
from regard.training.pace import measure_pace
from regard.training.precision import Precision

__all__ = ["Dialled", "Material", "dial", "dropout_for", "expected_loss", "sizes_for", "useful_epochs"]

SIZES = {
    "decoder": (
        (64, 2, 2), (96, 3, 3), (128, 4, 4), (192, 4, 4), (256, 6, 4), (384, 6, 6), (512, 8, 8), (768, 12, 12),
        (1024, 16, 16),
    ),
    "encoder-decoder": (
        (64, 2, 2), (96, 3, 3), (128, 4, 4), (192, 4, 4), (256, 4, 4), (384, 4, 6), (512, 6, 8), (768, 6, 12),
        (1024, 6, 16),
    ),
    "encoder": (
        (64, 2, 2), (96, 2, 3), (128, 2, 4), (192, 3, 4), (256, 4, 4), (384, 6, 6), (512, 8, 8), (768, 12, 12),
        (1024, 16, 16),
    ),
}  # fmt: skip
"""Width, layers (of the encoder and of the decoder, where there are both) and heads of what can be chosen."""

OF_SIZE = ("width", "num_layers", "num_decoder_layers", "num_heads", "num_kv_heads", "head_size", "ffn_width")
MEASURING = 0.02
"""The part of the time, at most, in which the machine is measured; EVALUATING: that of all evaluations before the end,
ENDING: of measuring the best weights, which is cut off where it would take longer."""
EVALUATING, ENDING = 0.03, 0.1
_MOST_SECONDS = 10.0  # of measuring
_STEPS = 5000
"""Steps that a run should have at least: early on, steps count and not tokens (docs/log.md)."""
_LEAST_BATCH, _MOST_BATCH = 1024, 16_384
"""Tokens of a step: with fewer it gets little cheaper, and more are not tried here."""
_WIDTH = 128  # of `Task.by_time`
_WRITING = 5.0
"""What writing a token takes, in times of what training on one does."""
_KEPT_WORTH = 15.39  # Muennighoff et al. 2023: R*_D
_LOSS = (521.0, 1488.0, 0.3527)  # the same: A, B and alpha = beta, fitted on their C4


@dataclass(frozen=True)
class Material:
    """Hold what is trained on: the objective for a model, the loss, and how large and how long rows and parts are.

    Attributes:
        task: what is learned.
        objective: gives the examples for a configuration.
        loss: gives the loss for the settings and a configuration.
        size: of the training data.
        tail: seconds that drawing the curves, and what else comes last, is expected to take.
        evaluate: measures a model on the way, as a run does; None where its time can't be told from fresh weights,
            since it writes texts, and such weights know no end.
        rows: held-out rows that the measure of a writing task is of, 0 for any other.
        held_out: tokens of the held-out data.
    """

    task: Task
    objective: Callable[[ModelConfig], Any]
    loss: Callable[[TrainConfig, ModelConfig], LossFunction]
    size: DataSize
    tail: float
    evaluate: Callable[[torch.nn.Module, ModelConfig], object] | None
    rows: int
    held_out: int


@dataclass(frozen=True)
class Dialled:
    """Hold what was chosen.

    Attributes:
        config: the model.
        training: the settings.
        precision: what is fast here.
        step_seconds: of a step, measured.
        steps, epochs: that there will be time for.
        tokens: of an epoch.
        evaluation: seconds of an evaluation on the way, as expected; `whole` how many times as long that of all
            held-out data takes.
        tail: seconds for loading the best weights, drawing the curves and leaving the process.
        quick_rows: held-out rows of an evaluation on the way, None for a task that isn't measured by rows.
        ends_early: whether more passes than the time allows would be of no use.
    """

    config: ModelConfig
    training: TrainConfig
    precision: str
    step_seconds: float
    steps: int
    epochs: float
    tokens: int
    evaluation: float
    whole: float
    tail: float
    quick_rows: int | None
    ends_early: bool

    def summary(self) -> str:
        """Say in one line what was chosen."""
        c, t = self.config, self.training
        layers = f"{c.num_layers}" + (f"+{c.num_decoder_layers}" if c.kind == "encoder-decoder" else "")
        shape = c.cell if isinstance(c, RecurrentConfig) else f"{c.num_heads} heads"
        passes = f"{self.epochs:,.1f}" if self.epochs < 10 else f"{self.epochs:,.0f}"
        return (
            f"width {c.width}, {layers} layers, {shape}, {c.num_parameters():,} weights; about "
            f"{self.steps:,} steps of {t.batch_tokens:,} tokens, {passes} passes, {self.step_seconds:.3g} s each; "
            f"dropout {c.dropout:g}, rate {t.lr:g}, {t.schedule}"
            + ("; it ends with them, as more would teach it no more" if self.ends_early else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """Give what a run's record keeps beside its model and its training, as plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            name: value for name, value in values.items() if name not in ("config", "training", "precision")
        }

    def ending(self, minutes: float) -> Callable[[float | None], float]:
        """Give what the clock asks: how long the best weights are measured, from the seconds of an evaluation before.

        That gets a tenth of the time at most.
        """
        return ending_of(self.to_dict(), minutes)


def ending_of(record: Mapping[str, Any], minutes: float) -> Callable[[float | None], float]:
    """Give what `Dialled.ending` does, from a run's record."""
    whole, expected, most = float(record["whole"]), float(record["evaluation"]), ENDING * minutes * 60
    tail = float(record["tail"])
    return lambda latest: min(most, whole * (expected if latest is None else latest)) + tail


def expected_loss(parameters: int, tokens: float, unique: int) -> float:
    """Give a loss by which sizes of model are compared: A/N^a + B/D'^a, where repeated tokens are worth less.

    D' = U + U R (1 - exp(-(D/U - 1)/R)): four passes are worth almost four times the data, forty hardly more than
    twenty. Only the order of its values counts; the constants are those of a much larger text.

    Args:
        parameters: N.
        tokens: D, seen in training.
        unique: U, of one pass.

    Source: Muennighoff et al. 2023, "Scaling Data-Constrained Language Models", arXiv:2305.16264, equations 5 and 8.
    Differs in that too large a model is not discounted: dropout is for that.
    """
    a, b, power = _LOSS
    repeats = max(0.0, tokens / unique - 1)
    worth = min(tokens, unique) + unique * _KEPT_WORTH * (1 - math.exp(-repeats / _KEPT_WORTH))
    return a / parameters**power + b / max(1.0, worth) ** power


def dropout_for(epochs: float, parameters: int, unique: int) -> float:
    """Give the dropout: none for up to four passes, which are as good as new text, then 0.1 more for each doubling.

    At most 0.3, and less where the model has fewer than two weights for each token, which it can't learn by heart.
    Source: Muennighoff et al. 2023 for the four passes; Wu et al. 2021, arXiv:2105.14462, take 0.3 on Multi30k for
    about 100 passes of a model with three weights for each token.
    """
    wanted = 0.1 * math.log2(max(1.0, epochs / 4)) * min(1.0, parameters / (2 * unique))
    return round(min(0.3, wanted) * 20) / 20


def sizes_for(base: ModelConfig) -> list[ModelConfig]:
    """Give a configuration in all its sizes, from the smallest."""
    ratio = (base.ffn_width or 4 * base.width) / base.width
    return [
        base.replace(width=width, num_layers=layers, num_heads=heads, ffn_width=8 * round(ratio * width / 8))
        for width, layers, heads in SIZES[base.kind]
    ]


def useful_epochs(task: Task, size: DataSize, batch_tokens: int, *, tuned: bool) -> int | None:
    """Give the passes after which more are of no use: a text's label says little, and its wording is then learned.

    None where there is no such number: text is worth many passes to a model that writes it, with dropout. A model that
    knows something already bears 20 passes over few texts, and 3 over many; one that begins with labels alone needs as
    many as make a thousand steps, which the recipes' passes come to.
    Source: Mosbach et al. 2021, arXiv:2006.04884, for the 20; Devlin et al. 2018, appendix A.3, for the 3.
    """
    if tuned:
        return min(20, size.epochs(3, batch_tokens))
    return size.epochs(4, batch_tokens) if task.labelled else None


def dial(
    material: Material, config: ModelConfig, training: TrainConfig, seconds: float, *, given: Mapping[str, Any],
    start: Callable[[], torch.nn.Module] | None = None,
) -> Dialled:  # fmt: skip
    """Choose what to train in so many seconds, evaluations and the end included.

    Args:
        material: what is trained on.
        config: what suits the data; of any size, unless one is given.
        training: what suits it, with what is given.
        seconds: of the time, what is left.
        given: settings of training and model that stay as they are; `model` where the size does.
        start: gives the module whose size it is that trains from weights of its own; None: one from nothing.
    """
    task, tuned = material.task, start is not None
    room = max(0.3 * seconds, seconds - (EVALUATING + ENDING / 2) * seconds - material.tail)
    if not tuned:
        training = training.replace(**{n: v for n, v in task.by_time.items() if n not in given})
    useful = useful_epochs(task, material.size, training.batch_tokens, tuned=tuned)
    candidates = [config]
    if not tuned and "model" not in given and not any(name in given for name in OF_SIZE):
        # What labels teach is no more in a larger model (docs/log.md).
        candidates = [c for c in sizes_for(config) if c.width <= config.width or not task.labelled]
    examples = material.objective(config)
    unique = max(1, int(examples.lengths(training.seed, 0).sum()))
    number, epoch_seconds, precision = _choose_size(
        material, candidates, examples, training, unique, room, budget=min(_MOST_SECONDS, MEASURING * seconds),
        useful=useful, start=start,
    )  # fmt: skip
    chosen, epochs = candidates[number], room / epoch_seconds
    if not tuned:
        training = _batch(training, chosen, unique * epochs, given, labelled=task.labelled)
    steps_each = Batches(examples, tokens_per_batch=training.batch_tokens, seed=training.seed).num_batches(0)
    if ends_early := useful is not None and epochs > 1.1 * useful:
        assert useful is not None
        epochs = float(useful)
        training = training.replace(epochs=useful)
    steps, step_seconds = max(1, round(epochs * steps_each)), epoch_seconds / steps_each
    if not (tuned or task.labelled or "dropout" in given):
        chosen = chosen.replace(dropout=dropout_for(epochs, _weights(chosen), unique))
    expected, whole, quick_rows = _evaluation(material, seconds, epoch_seconds, unique)
    if material.evaluate is not None and expected < MEASURING * seconds:
        module = build(chosen) if start is None else start()
        began = time.perf_counter()
        material.evaluate(module.eval(), chosen)
        expected = time.perf_counter() - began
    changes = {**_rhythm(steps, step_seconds, seconds, expected), "schedule": "linear", "min_lr_ratio": 0.0}
    changes["warmup"] = min(training.warmup, max(1, steps // 20))
    training = training.replace(**{name: value for name, value in changes.items() if name not in given})
    return Dialled(
        chosen, training, precision, step_seconds, steps, epochs, unique, expected, whole, material.tail, quick_rows,
        ends_early,
    )  # fmt: skip


def _choose_size(
    material: Material, candidates: Sequence[ModelConfig], examples: Any, training: TrainConfig, unique: int,
    room: float, *, budget: float, useful: int | None, start: Callable[[], torch.nn.Module] | None,
) -> tuple[int, float, str]:  # fmt: skip
    """Time real steps of the size that seems best, until that is one that was timed; give it, its epoch, a precision.

    At most three sizes are timed, for `budget` seconds in all where steps aren't slow.
    """

    def score(number: int) -> float:
        """Give the loss to be expected; what isn't timed takes as long as the nearest that is, by its cost."""
        near = min(timed, key=lambda other: abs(other - number))
        seconds = timed[near][0] * _cost(candidates[number]) / _cost(candidates[near])
        epochs = room / seconds if useful is None else min(float(useful), room / seconds)
        return expected_loss(_weights(candidates[number]), unique * epochs, unique)

    timed: dict[int, tuple[float, Precision]] = {}
    pick = min(2, len(candidates) - 1)
    batches = Batches(examples, tokens_per_batch=training.batch_tokens, seed=training.seed)
    plan = batches.num_batches(0)
    some = [batches.batch(0, k) for k in range(min(2, plan))]
    while pick not in timed and len(timed) < 3:
        module = build(candidates[pick]) if start is None else start()
        loss = material.loss(training, candidates[pick])
        pace = measure_pace(module, some, loss, training, seconds=budget / 2 ** (1 + len(timed)), least=1)
        timed[pick] = pace.seconds * plan, pace.precision
        pick = min(range(len(candidates)), key=score)
    if pick not in timed:
        pick = min(timed, key=score)
    return pick, *timed[pick]


def _weights(config: ModelConfig) -> int:
    """Count the weights that a token passes through, by which sizes are compared."""
    return config.num_parameters()


def _cost(config: ModelConfig) -> float:
    """Give what a step costs in comparison: products with the weights, and passes over the states of each layer."""
    layers = config.num_layers + (config.num_decoder_layers or 0)
    return _weights(config) + 1500.0 * config.width * layers


def _batch(
    training: TrainConfig, chosen: ModelConfig, tokens: float, given: Mapping[str, Any], *, labelled: bool
) -> TrainConfig:
    """Choose a batch that leaves enough steps, and with it the rate.

    The rate goes with the square root of the batch (Malladi et al. 2022, arXiv:2205.10287) and against that of the
    width: Muon's update has the size of AdamW's, so that its largest singular value grows with the root of the width.
    """
    batch = training.batch_tokens
    if not labelled and "batch_tokens" not in given:
        batch = min(_MOST_BATCH, max(_LEAST_BATCH, 2 ** int(math.log2(max(1.0, tokens / _STEPS)))))
    if "lr" in given:
        return training.replace(batch_tokens=batch)
    rate = training.lr * math.sqrt(batch / training.batch_tokens * _WIDTH / chosen.width)
    return training.replace(batch_tokens=batch, lr=float(f"{rate:.2g}"))


def _rhythm(steps: int, step_seconds: float, seconds: float, evaluation: float) -> dict[str, int]:
    """Choose how often to measure, to save and to log; nothing is measured just before the end, where it is anyway."""
    often = max(1, min(10, int(EVALUATING * seconds / evaluation) - 1))
    return {
        "evaluate_every": max(1, round(steps / (often + 0.8))),
        "save_every": max(1, round(min(300.0, seconds / 3) / step_seconds)),
        "log_every": max(1, min(10, steps // 50)),
    }


def _evaluation(
    material: Material, seconds: float, epoch_seconds: float, unique: int
) -> tuple[float, float, int | None]:
    """Give the seconds of an evaluation on the way, how many times as long the whole takes, and its rows."""
    token = epoch_seconds / unique
    if not material.task.writes:
        quick = max(1, min(material.held_out, material.task.quick_tokens))
        return max(1e-3, quick * token / 3), max(1.0, material.held_out / quick), None
    row = _WRITING * token * unique / max(1, material.size.rows)
    quick = max(16, min(500, int(EVALUATING / 6 * seconds / row)))
    quick = max(1, min(quick, material.rows))
    return quick * row, max(1.0, material.rows / quick), quick
