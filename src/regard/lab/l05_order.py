"""L5: without positions "dog bites man" equals "man bites dog"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from regard.config import ModelConfig, PositionKind
from regard.lab.claim import Claim, Figure, Finding, Measured, Panel, Report, Series, Settings, Size, Status
from regard.lab.statistics import estimate, number
from regard.models.transformer import build

KINDS: tuple[PositionKind, ...] = ("none", "sinusoidal", "learned", "rotary", "alibi", "t5")
STACKS: tuple[Literal["encoder", "decoder"], ...] = ("encoder", "decoder")
ORDERS = ("dog bites man", "shuffled", "mirrored")
EXACT = 1e-6  # of a state's size: what lies below is rounding


def measure(seed: int, settings: Settings, report: Report) -> Measured:
    """Compare each word's state in two orders of the same words, for every kind of position, in double precision."""
    found: Measured = {}
    for kind in KINDS:
        found[kind] = {}
        for stack in STACKS:
            torch.manual_seed(seed)
            config = ModelConfig(
                kind=stack, vocab_size=settings["vocabulary"], width=settings["width"], num_heads=4, position=kind,
                num_layers=settings["layers"], context=settings["words"], head="none",
            )  # fmt: skip
            model = build(config).double().eval()
            words = torch.randperm(settings["vocabulary"] - 3)[: settings["words"]] + 3
            orders = {
                "dog bites man": (words[:3], torch.tensor([2, 1, 0])),
                "shuffled": (words, torch.randperm(len(words))),
                "mirrored": (words, torch.arange(len(words)).flip(0)),
            }
            with torch.inference_mode():
                found[kind][stack] = {
                    name: _difference(model(ids[None])[0], model(ids[order][None])[0], order)
                    for name, (ids, order) in orders.items()
                }
    return found


def _difference(first: Tensor, second: Tensor, order: Tensor) -> float:
    """Give the largest difference of a word's states in both orders, as a part of their size."""
    return float((first[order] - second).abs().max() / first.pow(2).mean().sqrt())


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say where the order is lost."""
    blind = [max(one["none"]["encoder"].values()) for one in found]
    causal = estimate([min(one["none"]["decoder"].values()) for one in found])
    told = [min(one[kind]["encoder"]["shuffled"] for kind in KINDS[1:]) for one in found]
    mirrored = max(one["alibi"]["encoder"]["mirrored"] for one in found)
    is_equal, tells = max(blind) < EXACT, min(told) > EXACT
    sentence = (
        f"without positions the words of an encoder have the same states in any order, to {number(max(blind), 2)} "
        f"of their size, and with positions they differ by {estimate(told).text()} at least"
    )
    if not is_equal or not tells:
        sentence = (
            f"without positions the states of an encoder differ by {number(max(blind), 2)} of their size between "
            f"orders, and with positions by {estimate(told).text()} at least"
        )
    if causal.above(EXACT):
        sentence += f"; but a decoder's mask alone tells the order ({causal.text()} without positions)"
    if mirrored < EXACT:
        sentence += (
            f", and ALiBi in an encoder can't tell a sentence from its mirror image ({number(mirrored, 2)}), since "
            "it knows distances alone"
        )
    if not is_equal or not tells:
        status: Status = "fails"
    else:
        status = "holds in part" if causal.above(EXACT) or mirrored < EXACT else "holds"
    panels = tuple(
        Panel(
            f"{stack.capitalize()}: the same words in another order", "positions",
            "largest difference of a word's states (part of their size)",
            tuple(
                Series(
                    f"{order} ({3 if order == 'dog bites man' else settings['words']} words)", KINDS,
                    tuple(estimate([max(one[kind][stack][order], 1e-17) for one in found]) for kind in KINDS),
                )
                for order in ORDERS
            ),
            y_log=True,
        )
        for stack in STACKS
    )  # fmt: skip
    return Finding(
        status, f"{sentence}.", estimate(blind),
        "the largest difference of an encoder's states between two orders, without positions, as a part of their "
        "size",
        Figure(
            "How far a word's final state moves when the words are put in another order. Double precision: what lies "
            "at 1e-15 is rounding.", panels,
        ),
        {"decoder_without_positions": causal.mean, "alibi_mirrored": mirrored},
    )  # fmt: skip


CLAIM = Claim(
    id="L5",
    title="Order without positions",
    said='Attention sees a set: without positions "dog bites man" equals "man bites dog".',
    question='Is "dog bites man" the same as "man bites dog" to a model without positions?',
    method=(
        "Models with fresh weights, one for each kind of position, read the same words in two orders: three words "
        "turned round, and twelve shuffled and mirrored. Compared is each word's final state, wherever it stands, "
        "in an encoder, which sees all words, and in a decoder, which sees those before."
    ),
    refuted_by=(
        "A difference of more than 1e-6 of the states' size without positions in an encoder, or none with "
        "positions. Where the claim is true of encoders alone it holds in part."
    ),
    fair=(
        "The models differ in positions alone; parameters are equal but for the learned tables. Nothing is trained."
    ),
    tuning="None: it is a property of the architecture, at any weights; each seed draws others.",
    sizes={
        "laptop": Size(8, {"width": 64, "layers": 3, "vocabulary": 100, "words": 12}),
        "gpu": Size(20, {"width": 512, "layers": 6, "vocabulary": 1000, "words": 64}),
        "smoke": Size(2, {"width": 16, "layers": 1, "vocabulary": 20, "words": 6}),
    },
    measure=measure,
    conclude=conclude,
)
