"""L12: more parameters and more data keep helping."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regard.config import ModelConfig
from regard.lab.claim import Claim, Figure, Finding, Measured, Panel, Report, Series, Settings, Size, Status
from regard.lab.learning import WorldText, generator, learn, make, on
from regard.lab.statistics import difference, estimate, number

_POWERS = [0.05 * k for k in range(1, 41)]
_AT_ONCE = 32


def measure(seed: int, settings: Settings, report: Report) -> Measured:
    """Train a decoder of each size once, and measure its loss as the tokens grow."""
    with on(settings["device"]):
        return _measure_on(seed, settings, report)


def _measure_on(seed: int, settings: Settings, report: Report) -> Measured:
    text = WorldText.draw(seed, train=settings["sentences"], valid=settings["held_out"])
    size = settings["rows"] * settings["length"]
    found: Measured = {"parameters": {}, "loss": {}, "tokens": [steps * size for steps in settings["steps"]]}
    for width in settings["widths"]:
        report(f"  width {width}")
        torch.manual_seed(seed)
        model = make(
            ModelConfig(
                kind="decoder", vocab_size=len(text.words), width=width, num_layers=settings["layers"],
                num_heads=max(1, width // 16), position="rotary", context=settings["length"], pad_id=None, bos_id=None,
                eos_id=None,
            )
        )  # fmt: skip
        losses: dict[str, float] = {}

        def look(step: int, model: nn.Module = model, losses: dict[str, float] = losses) -> None:
            losses[str(step * size)] = _held_out(model, text, settings)

        learn(
            model, partial(_loss, model, text, settings, seed), steps=settings["steps"][-1],
            lr=settings["lr"] * math.sqrt(64 / width), warmup=settings["warmup"], schedule="constant",
            at=settings["steps"], look=look,
        )  # fmt: skip
        embedded = width * len(text.words)
        found["parameters"][str(width)] = sum(p.numel() for p in model.parameters()) - embedded
        found["loss"][str(width)] = losses
    return found


def _loss(model: nn.Module, text: WorldText, settings: Settings, seed: int, step: int) -> Tensor:
    ids = text.batch(settings["rows"], settings["length"], generator(seed, 12, step))
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


@torch.inference_mode()
def _held_out(model: nn.Module, text: WorldText, settings: Settings) -> float:
    ids = text.held_out(settings["test_rows"], settings["length"])
    parts = [
        F.cross_entropy(model(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten(), reduction="sum")
        for part in ids.split(_AT_ONCE)
    ]
    return float(torch.stack(parts).sum()) / (ids.shape[0] * settings["length"])


Law = tuple[float, float, float, float, float]
"""E, A, a, B and b of the loss E + A N^-a + B D^-b."""


def fit(points: Sequence[tuple[float, float, float]]) -> Law:
    """Fit the law to points (N weights, D tokens, loss): least squares over E, A, B >= 0 on a grid of a and b.

    Source: Hoffmann et al. 2022, arXiv:2203.15556, equation 10.
    """
    loss = [point[2] for point in points]
    size, tokens = (max(point[k] for point in points) for k in (0, 1))
    scale = math.fsum(value * value for value in loss)
    best: tuple[float, Law] | None = None
    for a, b in itertools.product(_POWERS, _POWERS):
        # Sizes are counted in the largest, which keeps the problem well behaved.
        columns = [(1.0, (n / size) ** -a, (d / tokens) ** -b) for n, d, _ in points]
        found = _least_squares(columns, loss)
        if found is None or min(found) < 0:
            continue
        left = math.fsum((_dot(found, row) - value) ** 2 for row, value in zip(columns, loss, strict=True))
        if best is None or left < best[0] - 1e-12 * scale:  # of powers that fit alike, the first
            floor, by_size, by_tokens = found
            best = left, (floor, by_size * size**a, a, by_tokens * tokens**b, b)
    if best is None:  # no part of it falls: the mean alone
        return math.fsum(loss) / len(loss), 0.0, 1.0, 0.0, 1.0
    return best[1]


def _least_squares(columns: Sequence[Sequence[float]], wanted: Sequence[float]) -> list[float] | None:
    """Solve the normal equations in plain arithmetic, always the same to the bit; None where there is no one answer."""
    count = len(columns[0])
    table = [
        [*(_dot([row[i] for row in columns], [row[j] for row in columns]) for j in range(count)),
         _dot([row[i] for row in columns], wanted)]
        for i in range(count)
    ]  # fmt: skip
    for i in range(count):
        pivot = max(range(i, count), key=lambda k: abs(table[k][i]))
        if abs(table[pivot][i]) < 1e-12:
            return None
        table[i], table[pivot] = table[pivot], table[i]
        for k in range(count):
            if k != i:
                part = table[k][i] / table[i][i]
                table[k] = [x - part * y for x, y in zip(table[k], table[i], strict=True)]
    return [table[i][count] / table[i][i] for i in range(count)]


def _dot(first: Sequence[float], second: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(first, second, strict=True))


def predict(law: Law, parameters: float, tokens: float) -> float:
    """Give the loss that a law expects."""
    floor, by_size, a, by_tokens, b = law
    return floor + by_size * parameters**-a + by_tokens * tokens**-b


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say whether each doubling helps, and whether a law fitted on small models knows the largest."""
    widths, tokens = [str(width) for width in settings["widths"]], [str(n) for n in found[0]["tokens"]]

    def loss(width: str, count: str) -> list[float]:
        return [one["loss"][width][count] for one in found]

    larger = [difference(loss(a, tokens[-1]), loss(b, tokens[-1])) for a, b in itertools.pairwise(widths)]
    longer = [difference(loss(widths[-1], a), loss(widths[-1], b)) for a, b in itertools.pairwise(tokens)]
    points = {
        (width, count): (
            float(found[0]["parameters"][width]),
            float(count),
            estimate(loss(width, count)).mean,
        )
        for width in widths
        for count in tokens
    }
    laws, missed = [], []
    for one in found:
        known = [
            (points[key][0], points[key][1], one["loss"][key[0]][key[1]])
            for key in points
            if key != (widths[-1], tokens[-1])
        ]
        laws.append(fit(known))
        corner = points[widths[-1], tokens[-1]]
        missed.append(abs(predict(laws[-1], corner[0], corner[1]) - one["loss"][widths[-1]][tokens[-1]]))
    helps = [gain.above(0) for gain in (*larger, *longer)]
    harms = [gain.below(0) for gain in (*larger, *longer)]
    status: Status = "holds" if all(helps) else "fails" if any(harms) or not any(helps) else "holds in part"
    powers = [estimate([law[k] for law in laws]) for k in (2, 4)]
    error = estimate(missed)
    total = difference(loss(widths[0], tokens[-1]), loss(widths[-1], tokens[-1]))
    sentence = (
        f"{sum(helps[: len(larger)])} of {len(larger)} steps to a wider model and {sum(helps[len(larger) :])} of "
        f"{len(longer)} to more tokens lower the held-out loss; from the smallest to the largest model it falls by "
        f"{total.text('nats')}, with powers of {powers[0].text()} in the parameters and {powers[1].text()} in the "
        f"tokens, and the law fitted without the last point misses it by {error.text('nats')}; the last steps bring "
        f"{larger[-1].text('nats')} and {longer[-1].text('nats')}"
    )
    mean_law = fit(list(points.values()))
    shown = [
        Series(
            f"{number(points[width, tokens[0]][0], 4)} weights", tuple(float(n) for n in tokens),
            tuple(estimate(loss(width, n)) for n in tokens),
        )
        for width in widths
    ]  # fmt: skip
    sizes = tuple(points[width, tokens[0]][0] for width in widths)
    panels = (
        Panel("More data", "tokens of training", "held-out loss (nats a word)", tuple(shown), True),
        Panel(
            "More parameters", "weights outside the embeddings", "held-out loss (nats a word)",
            (
                Series("measured, most tokens", sizes, tuple(estimate(loss(w, tokens[-1])) for w in widths)),
                Series(
                    "fitted law", sizes,
                    tuple(estimate([predict(mean_law, size, float(tokens[-1]))]) for size in sizes), True,
                ),
            ),
            True,
        ),
    )  # fmt: skip
    return Finding(
        status, f"{sentence}.", total,
        f"held-out loss of the smallest model less that of the largest, after {int(tokens[-1]):,} tokens (nats a "
        "word)",
        Figure(
            "Decoders on the demo's world as whole words. A floor remains: the world draws its sentences, and no "
            "model "
            "can know what is drawn.", panels,
        ),
        {"law": dict(zip(("E", "A", "a", "B", "b"), mean_law, strict=True)), "missed": error.mean},
    )  # fmt: skip


CLAIM = Claim(
    id="L12",
    title="More of everything",
    said="More parameters and more data keep helping.",
    question="Does each step to a larger model, and to more tokens, lower the held-out loss, and by a power law?",
    method=(
        "Decoders of growing width read the demo's world word by word, at a constant rate, and their held-out loss "
        "is measured as the tokens double. The loss E + A N^-a + B D^-b is fitted to all points of a seed but that "
        "of the largest model with the most tokens, and then asked for that one."
    ),
    refuted_by=(
        "A step to a larger model or more tokens after which the loss is higher, or none after which it is lower. "
        "If some steps bring nothing that shows over seeds, it holds in part."
    ),
    fair="Equal data, order and tokens; what differs is the width, and with it parameters and time.",
    tuning="One rule for all: a rate that falls with the square root of the width, taken as it is.",
    sizes={
        "laptop": Size(
            3,
            {
                "device": "cpu",
                "widths": [16, 32, 64, 128], "layers": 2, "rows": 16, "length": 64, "steps": [75, 150, 300, 600, 1200],
                "lr": 3e-3, "warmup": 30, "sentences": 60_000, "held_out": 2000, "test_rows": 256,
            },
        ),
        "gpu": Size(
            5,
            {
                "device": "auto",
                "widths": [32, 64, 128, 256, 512], "layers": 4, "rows": 64, "length": 128,
                "steps": [250, 500, 1000, 2000, 4000, 8000], "lr": 3e-3, "warmup": 100, "sentences": 1_000_000,
                "held_out": 10_000, "test_rows": 512,
            },
        ),
        "smoke": Size(
            2,
            {
                "device": "cpu",
                "widths": [16, 32], "layers": 1, "rows": 4, "length": 8, "steps": [1, 2, 4], "lr": 3e-3, "warmup": 1,
                "sentences": 60, "held_out": 20, "test_rows": 8,
            },
        ),
    },
    measure=measure,
    conclude=conclude,
)  # fmt: skip
