"""L10: several heads keep interpretations apart that one head averages away."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regard.config import ModelConfig
from regard.lab.claim import Claim, Figure, Finding, Measured, Panel, Report, Series, Settings, Size, Status
from regard.lab.learning import generator, learn, make, on
from regard.lab.statistics import difference, estimate
from regard.nn.attention import record

GAIN, NEAR = 0.05, 0.02
"""A share of right answers that counts as better, and one within which two sides count as alike."""


def sides(settings: Settings) -> dict[str, dict[str, Any]]:
    """Name the sides: one layer with more and more heads, and one head in two thinner layers."""
    one: dict[str, dict[str, Any]] = {
        f"{n} head{'s' if n > 1 else ''}": {"num_heads": n, "width": settings["width"], "num_layers": 1}
        for n in settings["heads"]
    }
    return {**one, "1 head, 2 thin layers": {"num_heads": 1, "width": settings["thin"], "num_layers": 2}}


def measure(seed: int, settings: Settings, report: Report) -> Measured:
    """Let every side learn to answer two questions at once, at each of the rates, and keep its better one."""
    with on(settings["device"]):
        return _measure_on(seed, settings, report)


def _measure_on(seed: int, settings: Settings, report: Report) -> Measured:
    found: Measured = {"accuracy": {}, "each": {}, "parameters": {}, "rate": {}, "on": {}}
    for name, shape in sides(settings).items():
        report(f"  {name}")
        for rate in settings["rates"]:
            torch.manual_seed(seed)
            model = make(
                ModelConfig(
                    kind="encoder", vocab_size=settings["symbols"], context=settings["length"], position="rotary",
                    head="tag", labels=tuple(map(str, range(settings["symbols"] ** 2))), pad_id=None, bos_id=None,
                    eos_id=None, **shape,
                )
            )  # fmt: skip
            learn(model, partial(_loss, model, settings, seed), steps=settings["steps"], lr=rate)
            tuned = _measure(model, settings, seed, part=1)["accuracy"]
            if tuned > found["rate"].get(name, (-1.0,))[0]:
                found["rate"][name] = [tuned, rate]
                for what, value in _measure(model, settings, seed, part=2).items():
                    found[what][name] = value
        found["parameters"][name] = sum(p.numel() for p in model.parameters())
    return found


def two_questions(settings: Settings, draw: torch.Generator, rows: int) -> tuple[Tensor, Tensor]:
    """Draw rows of symbols, and for each place the two symbols at two distances before it, as one number."""
    ids = torch.randint(settings["symbols"], (rows, settings["length"]), generator=draw)
    near, far = (ids.roll(distance, 1) for distance in settings["distances"])
    return ids, near * settings["symbols"] + far


def _loss(model: nn.Module, settings: Settings, seed: int, step: int) -> Tensor:
    ids, answers = two_questions(settings, generator(seed, 3, step), settings["rows"])
    first = max(settings["distances"])
    return F.cross_entropy(model(ids)[:, first:].flatten(0, 1), answers[:, first:].flatten())


@torch.inference_mode()
def _measure(model: nn.Module, settings: Settings, seed: int, *, part: int) -> Measured:
    """Give how often both symbols are right, how often each is, and the attention on both places."""
    ids, answers = two_questions(settings, generator(seed, 4, part), settings["test_rows"])
    first, symbols = max(settings["distances"]), settings["symbols"]
    with record() as recorder:
        said = model(ids).argmax(-1)[:, first:]
    wanted = answers[:, first:]
    places = torch.arange(first, settings["length"])
    weights = recorder["encoder.0"]
    on = [
        float(weights[:, :, places, places - distance].mean((0, 2)).max())
        for distance in settings["distances"]
    ]
    near, far = (said // symbols == wanted // symbols), (said % symbols == wanted % symbols)
    return {
        "accuracy": float((said == wanted).double().mean()),
        "each": [float(one.double().mean()) for one in (near, far)],
        "on": on,
    }


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say whether heads are what keeps two answers apart."""
    names = list(sides(settings))
    one, many, deep = names[0], names[-2], names[-1]

    def of(name: str) -> list[float]:
        return [float(each["accuracy"][name]) for each in found]

    gain, deeper = difference(of(many), of(one)), difference(of(many), of(deep))
    status: Status
    if estimate(of(many)).mean < 0.5:
        status = "undecided"
    elif not gain.above(GAIN):
        status = "fails"
    else:
        status = "holds in part" if deeper.below(NEAR) else "holds"
    guess = 1 / settings["symbols"] ** 2
    sentence = (
        f"asked for two symbols at once, one layer with {many} is right in {estimate(of(many)).text('%', 3, 100)} "
        f"of the places and with one head in {estimate(of(one)).text('%', 3, 100)} (guessing {100 * guess:.2g} %), "
        f"a gain of {gain.text('points', 3, 100)} at equal parameters"
    )
    if status == "holds in part":
        sentence += (
            f"; but one head in two thinner layers does it too ({estimate(of(deep)).text('%', 3, 100)})"
        )
    elif status == "undecided":
        sentence += "; but neither learned the task"
    elif status == "holds":
        sentence += f", and one head in two thinner layers reaches {estimate(of(deep)).text('%', 3, 100)}"
    places = tuple(names)
    panels = (
        Panel(
            "Both symbols right", "model", "accuracy (part of the places)",
            (Series("both", places, tuple(estimate(of(name)) for name in names)),),
        ),
        Panel(
            "Each symbol by itself", "model", "accuracy (part of the places)",
            tuple(
                Series(
                    f"{distance} before", places,
                    tuple(estimate([each["each"][name][k] for each in found]) for name in names),
                )
                for k, distance in enumerate(settings["distances"])
            ),
        ),
        Panel(
            "What the head that looks there most gives to each place", "model",
            "weight in the first layer (part of a row)",
            tuple(
                Series(
                    f"{distance} before", places,
                    tuple(estimate([each["on"][name][k] for each in found]) for name in names),
                )
                for k, distance in enumerate(settings["distances"])
            ),
        ),
        Panel(
            "Parameters", "model", "weights (thousands)",
            (
                Series(
                    "whole model", places,
                    tuple(estimate([each["parameters"][name] / 1000 for each in found]) for name in names),
                ),
            ),
        ),
    )  # fmt: skip
    return Finding(
        status, f"{sentence}.", gain,
        f"accuracy of {many} less that of one head, one layer each (part of the places)",
        Figure(
            f"Every place is asked for the symbols {settings['distances'][0]} and {settings['distances'][1]} before "
            "it. A "
            "head has one row of weights for both.", panels,
        ),
        {"two_layers": estimate(of(deep)).mean, "guessing": guess},
    )  # fmt: skip


CLAIM = Claim(
    id="L10",
    title="One head and eight",
    said="Several heads keep interpretations apart that a single head would average away.",
    question="Can one head look for two things at once, at equal parameters?",
    method=(
        "Every place of a row of drawn symbols must name two others at once, at two distances before it. A layer "
        "with one head has one row of weights for both; with more heads each can have its own. The width is the "
        "same, so the parameters are. Beside them stands one head in two layers that are so thin that they have "
        "about as many parameters."
    ),
    refuted_by=(
        "A gain of less than 5 points with the most heads over one. If one head in two thinner layers does as "
        "well, within 2 points, it holds in part: not the heads are needed, but a second look."
    ),
    fair="Equal parameters (within 5 %), data, order and steps.",
    tuning="Every side was trained at the same rates, and its better one was chosen on rows that are not measured.",
    sizes={
        "laptop": Size(
            3,
            {
                "device": "cpu",
                "heads": [1, 2, 4, 8], "width": 64, "thin": 46, "symbols": 8, "length": 24, "distances": [1, 3],
                "rates": [2e-3, 5e-3], "steps": 400, "rows": 32, "test_rows": 256,
            },
        ),
        "gpu": Size(
            8,
            {
                "device": "auto",
                "heads": [1, 2, 4, 8], "width": 128, "thin": 92, "symbols": 16, "length": 64, "distances": [1, 3],
                "rates": [1e-3, 2e-3, 5e-3], "steps": 3000, "rows": 64, "test_rows": 512,
            },
        ),
        "smoke": Size(
            2,
            {
                "device": "cpu",
                "heads": [1, 2], "width": 16, "thin": 12, "symbols": 3, "length": 8, "distances": [1, 3],
                "rates": [2e-3], "steps": 3, "rows": 4, "test_rows": 8,
            },
        ),
    },
    measure=measure,
    conclude=conclude,
)  # fmt: skip
