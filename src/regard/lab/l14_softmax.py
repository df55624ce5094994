"""L14: softmax gives probabilities, and dividing by √d keeps it from saturating."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from regard.config import ModelConfig
from regard.lab.claim import Claim, Figure, Finding, Measured, Panel, Report, Series, Settings, Size, Status
from regard.lab.statistics import difference, estimate, number
from regard.nn.attention import Attend, Attention, record
from regard.nn.masks import Mask

SIDES = {
    "scaled": "independent, times 1/√d",
    "plain": "independent, not scaled",
    "layer": "a fresh layer of the library, times 1/√d",
    "alike": "the query is one of the keys, times 1/√d",
    "alike_by_d": "the query is one of the keys, times 1/d",
}
BASELINES = ("plain",)
WIDE, SATURATED = 0.8, 0.3  # of the entropy of even attention


def measure(seed: int, settings: Settings, report: Report) -> Measured:
    """Draw queries and keys of each size, and see what the softmax of their products is like."""
    found: Measured = {name: {} for name in SIDES}
    found["sum"] = 0.0
    found["variance"] = {}
    for size in settings["sizes"]:
        rows, keys = settings["rows"], settings["keys"]
        key = torch.randn(rows, 1, keys, size, dtype=torch.float64)
        query = torch.randn(rows, 1, 1, size, dtype=torch.float64)
        found["variance"][str(size)] = float((query @ key.transpose(-1, -2)).var())
        weights = {
            "scaled": _attend(query, key, 1 / math.sqrt(size)),
            "plain": _attend(query, key, 1.0),
            "layer": _fresh_layer(rows, keys, size),
            "alike": _attend(key[..., :1, :], key, 1 / math.sqrt(size)),
            "alike_by_d": _attend(key[..., :1, :], key, 1 / size),
        }
        for name, some in weights.items():
            found[name][str(size)] = _describe(some)
            found["sum"] = max(found["sum"], float((some.sum(-1) - 1).abs().max()))
            assert float(some.min()) >= 0
    return found


def _attend(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Give the weights (R, S) of the library's own attention."""
    return Attend(scale=scale).reference(query, key, key, Mask())[1].flatten(0, 2)


def _fresh_layer(rows: int, keys: int, size: int) -> Tensor:
    """Give the weights of a layer of one head as it is drawn, on texts of normal vectors."""
    config = ModelConfig(
        kind="encoder", vocab_size=1, width=size, num_heads=1, pad_id=None, bos_id=None, eos_id=None
    )
    layer = Attention(config, name="layer")
    for linear in (layer.query, layer.key):
        torch.nn.init.xavier_uniform_(linear.weight)
        if linear.bias is not None:
            torch.nn.init.zeros_(linear.bias)
    layer, some = layer.double(), max(1, rows // keys)
    with torch.inference_mode(), record() as recorder:
        layer(torch.randn(some, keys, size, dtype=torch.float64))
    return recorder["layer"].flatten(0, 2)


def _describe(weights: Tensor) -> Measured:
    """Give the entropy as a part of the largest, how strongly weights answer to scores, and how many rows are decided.

    The second is the Frobenius norm of d weights / d scores = diag(w) - w wᵀ.
    """
    weights = weights.double()
    entropy = -(weights * weights.clamp(min=1e-300).log()).sum(-1) / math.log(weights.shape[-1])
    square = weights.pow(2).sum(-1)
    slope = (square - 2 * weights.pow(3).sum(-1) + square.pow(2)).clamp(min=0).sqrt()
    return {
        "entropy": float(entropy.mean()),
        "slope": float(slope.mean()),
        "decided": float((weights.amax(-1) > 0.99).double().mean()),
    }


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say what the scale is good for, and where it isn't enough."""
    sizes = settings["sizes"]
    last = str(sizes[-1])

    def of(name: str, what: str, size: str = last) -> list[float]:
        return [one[name][size][what] for one in found]

    scaled, plain, alike = (estimate(of(name, "entropy")) for name in ("scaled", "plain", "alike"))
    layer = estimate(of("layer", "entropy"))
    worst_sum = max(one["sum"] for one in found)
    gain = difference(of("scaled", "entropy"), of("plain", "entropy"))
    ratio = estimate(
        [a / max(b, 1e-300) for a, b in zip(of("scaled", "slope"), of("plain", "slope"), strict=True)]
    )
    keeps = scaled.above(WIDE) and layer.above(WIDE) and plain.below(SATURATED) and worst_sum < 1e-6
    sentence = (
        f"weights sum to one within {number(worst_sum, 2)}; at d = {sizes[-1]:,} dividing by √d keeps "
        f"{scaled.text('%', 3, 100)} of the entropy of even attention and not dividing {plain.text('%', 3, 100)}, "
        f"with {ratio.text()} times the gradient"
    )
    status: Status = "holds" if keeps else "fails"
    if keeps and alike.below(SATURATED):
        status = "holds in part"
        sentence += (
            "; but that is for vectors that have nothing to do with each other: where the query is one of the "
            f"keys, the scaled softmax is down to {alike.text('%', 3, 100)} all the same"
        )
    panels = tuple(
        Panel(
            title, "head size d", unit,
            tuple(
                Series(
                    label, tuple(float(size) for size in sizes),
                    tuple(estimate(of(name, what, str(size))) for size in sizes), name in BASELINES,
                )
                for name, label in SIDES.items()
            ),
            x_log=True,
        )
        for what, title, unit in (
            ("entropy", f"How spread out {settings['keys']} weights are", "entropy (part of even attention's)"),
            ("slope", "How strongly weights answer to scores", "norm of the softmax's Jacobian"),
            ("decided", "Rows that are decided", "part of rows with a weight above 0.99"),
        )
    )  # fmt: skip
    return Finding(
        status, f"{sentence}.", gain,
        f"relative entropy with the scale less that without, at d = {sizes[-1]:,} (part of even attention's)",
        Figure(
            "Components of queries and keys have variance one; a product then has variance d, and divided by √d "
            "variance one at any size. A query that fits its key has products that grow with d itself.", panels,
        ),
        {
            "gradient_ratio": ratio.mean,
            "variance": {str(s): estimate([one["variance"][str(s)] for one in found]).mean for s in sizes},
        },
    )  # fmt: skip


CLAIM = Claim(
    id="L14",
    title="Dividing by √d",
    said="Softmax turns scores into probabilities; dividing them by √d keeps it from saturating.",
    question="What becomes of the softmax as heads grow, with the division by √d and without it?",
    method=(
        "Queries and keys of independent normal numbers go through the library's own attention, scaled and not; so "
        "do normal vectors through a layer with fresh weights. Measured are the entropy of the weights, the norm "
        "of their derivative by the scores, and how many rows have decided. Then the other extreme: the query is "
        "one of the keys, as after training it may nearly be."
    ),
    refuted_by=(
        "Weights that don't sum to one; less than 80 % of the entropy of even attention with the scale at the "
        "largest size, or more than 30 % without. If the scale doesn't help where query and key fit, it holds in "
        "part."
    ),
    fair="Both sides see the same queries and keys; nothing is trained.",
    tuning="None: there is no setting to tune.",
    sizes={
        "laptop": Size(8, {"sizes": [4, 16, 64, 256, 1024], "keys": 64, "rows": 256}),
        "gpu": Size(20, {"sizes": [4, 16, 64, 256, 1024, 4096], "keys": 1024, "rows": 1024}),
        "smoke": Size(2, {"sizes": [4, 256], "keys": 16, "rows": 32}),
    },
    measure=measure,
    conclude=conclude,
)
