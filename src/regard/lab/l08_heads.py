"""L8: heads add hardly any parameters, and attend to different things."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from regard.demo_heads import question
from regard.lab.claim import Claim, Figure, Finding, Measured, Panel, Report, Series, Settings, Size, Status
from regard.lab.compare import Variant, compare
from regard.lab.statistics import difference, estimate
from regard.lab.translating import held_out, quality, world_files
from regard.look.corpus import measure_corpus
from regard.look.links import attention_of
from regard.look.roles import NONE, roles
from regard.models.transformer import build
from regard.runs import load_parts
from regard.tasks.base import Parts
from regard.tasks.looking import look

_RUN = {
    "norm_placement": "post", "norm": "layernorm", "activation": "relu", "position": "sinusoidal",
    "scale_embeddings": True, "context": 128, "optimizer": "muon", "lr": 4e-3, "schedule": "linear", "warmup": 40,
    "label_smoothing": 0.1, "precision": "fp32", "tokenizer": "bpe", "dropout": 0.0,
    "evaluate_every": 10**6, "save_every": 10**6,
}  # fmt: skip


def measure(seed: int, settings: Settings, report: Report) -> Measured:
    """Train a translator with each number of heads, measure it, and look at what its heads look at."""
    found: Measured = {"parameters": {}, "bleu": {}, "pronoun": {}, "apart": {}, "fresh": {}, "roles": {}}
    variants = [Variant(f"heads={heads}", None, {"num_heads": heads}) for heads in settings["heads"]]
    common = {
        **_RUN, "width": settings["width"], "num_layers": settings["layers"], "vocab_size": settings["vocabulary"],
        "batch_tokens": settings["batch_tokens"],
    }  # fmt: skip
    test = held_out(seed, "test", settings["test"])
    with world_files(seed, settings) as world:
        files = {part: [world / f"{part}.en", world / f"{part}.fr"] for part in ("train", "valid")}
        out = world / "runs"
        compare(
            "translate", variants, files["train"], valid=files["valid"], out=out, tokens=settings["tokens"],
            seeds=[seed], common=common, told=lambda line: report(f"  {line}"),
        )  # fmt: skip
        for variant in variants:
            heads = str(variant.settings["num_heads"])
            parts = load_parts(out / variant.folder / f"seed-{seed}")
            found["parameters"][heads] = parts.config.num_parameters()
            found["bleu"][heads], found["pronoun"][heads] = quality(parts, test).values()
            torch.manual_seed(seed)
            fresh = Parts(build(parts.config).eval(), parts.tokenizer, parts.config)
            some = test[: settings["looked_at"]]
            sentences = [question(example, parts.tokenizer, parts.config) for example in some]
            for name, one in (("apart", parts), ("fresh", fresh)):
                network: Any = one.module
                found[name][heads] = _apart(
                    [attention_of(network, s, pad=parts.config.pad_id or 0) for s in sentences]
                )
            looks = (look(parts, example.source, example.target) for example in some)
            told = roles(measure_corpus(looks)).values()
            found["roles"][heads] = len({one[0].name for one in told} - {NONE})
    return found


def _apart(texts: Sequence[dict[str, Tensor]]) -> float:
    """Give how far two heads of a layer are apart, the mean over pairs, layers, rows and texts, in bits.

    It is the Jensen-Shannon divergence of their rows: 0 where they look at the same, 1 where at nothing in common.
    """
    found = []
    for layers in texts:
        for weights in layers.values():
            for first, second in itertools.combinations(weights.double(), 2):
                both = (first + second) / 2
                found.append(float((_entropy(both) - (_entropy(first) + _entropy(second)) / 2).mean()))
    return max(0.0, sum(found) / len(found)) if found else 0.0


def _entropy(rows: Tensor) -> Tensor:
    return -(rows * rows.clamp(min=1e-300).log2()).sum(-1)


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say what more heads cost, whether they differ, and whether they help."""
    heads = [str(n) for n in settings["heads"]]
    many, one = heads[-1], heads[0]

    def of(what: str, number: str) -> list[float]:
        return [float(each[what][number]) for each in found]

    cost = estimate([a / b - 1 for a, b in zip(of("parameters", many), of("parameters", one), strict=True)])
    differ = difference(of("apart", many), of("fresh", many))
    best = max(heads[1:], key=lambda n: estimate(of("pronoun", n)).mean)
    helped = {what: difference(of(what, best), of(what, one)) for what in ("bleu", "pronoun")}
    is_cheap, is_apart = abs(cost.mean) < 0.01, differ.above(0)
    helps = any(gain.above(0) for gain in helped.values())
    status: Status = "fails"
    if is_cheap and is_apart:
        status = "holds" if helps else "holds in part"
    sentence = (
        f"{many} heads have {cost.text('%', 3, 100)} more parameters than one, and look {differ.text('bits')} "
        f"further apart than those of a fresh model ({estimate(of('apart', many)).text('bits')}); with {best} heads "
        f"a pronoun is right {helped['pronoun'].text('points', 3, 100)} more often than with one, and BLEU is "
        f"{helped['bleu'].text()} higher"
    )
    if status == "holds in part":
        sentence += "; that they help is not shown"
    numbers = tuple(float(n) for n in settings["heads"])

    def line(label: str, what: str, *, baseline: bool = False, factor: float = 1.0) -> Series:
        points = tuple(estimate([factor * value for value in of(what, n)]) for n in heads)
        return Series(label, numbers, points, baseline)

    per = "heads in a layer"
    panels = (
        Panel("Parameters", per, "weights (thousands)", (line("whole model", "parameters", factor=1e-3),), True),
        Panel("Translation of held-out combinations", per, "quality (BLEU)", (line("BLEU", "bleu"),), True),
        Panel("Pronouns", per, "right (part of the sentences; guessing 0.5)", (line("pronoun", "pronoun"),), True),
        Panel(
            "How far heads of a layer look apart", per, "Jensen-Shannon divergence (bits)",
            (line("trained", "apart"), line("fresh weights", "fresh", baseline=True)), True,
        ),
        Panel("Roles", per, "different roles (number of them)", (line("clear roles", "roles"),), True),
    )  # fmt: skip
    return Finding(
        status, f"{sentence}.", differ,
        f"divergence between heads of a layer, trained less fresh, with {many} heads (bits)",
        Figure(
            "Translators of equal width and training, which differ in the number of heads that the width is split "
            "into.",
            panels,
        ),
        {"cost": cost.mean, "best": int(best), **{f"gain_{what}": gain.mean for what, gain in helped.items()}},
    )  # fmt: skip


CLAIM = Claim(
    id="L8",
    title="What heads cost and do",
    said="Splitting attention into heads costs hardly any parameters, and the heads attend to different things.",
    question="What do more heads cost, do they look at different things, and do they help?",
    method=(
        "`regard compare` trains translators of the demo's world with 1, 2, 4 and 8 heads in the same width and "
        "the same tokens. Counted are parameters; measured are BLEU and the pronoun on held-out combinations, how "
        "far the heads of a layer look apart (the Jensen-Shannon divergence of their rows, beside that of fresh "
        "weights), and how many of the library's roles the heads take."
    ),
    refuted_by=(
        "A hundredth more parameters with the most heads than with one; or trained heads that are no further apart "
        "than fresh ones. If more heads help neither BLEU nor the pronoun, it holds in part."
    ),
    fair="Equal parameters, data, order, tokens and rate; sides differ in num_heads alone.",
    tuning="The demo's settings, which were found with 4 heads, for all; no side was tuned.",
    sizes={
        "laptop": Size(
            3,
            {
                "heads": [1, 2, 4, 8], "width": 96, "layers": 2, "vocabulary": 3000, "batch_tokens": 2048,
                "tokens": 600_000, "primer": 6000, "whole": 8000, "valid": 100, "test": 400, "looked_at": 40,
            },
        ),
        "gpu": Size(
            5,
            {
                "heads": [1, 2, 4, 8, 16], "width": 256, "layers": 3, "vocabulary": 3000, "batch_tokens": 4096,
                "tokens": 6_000_000, "primer": 6000, "whole": 40_000, "valid": 200, "test": 1200, "looked_at": 100,
            },
        ),
        "smoke": Size(
            2,
            {
                "heads": [1, 2], "width": 16, "layers": 1, "vocabulary": 400, "batch_tokens": 512,
                "tokens": 1024, "primer": 20, "whole": 60, "valid": 6, "test": 8, "looked_at": 4,
            },
        ),
    },
    measure=measure,
    conclude=conclude,
)  # fmt: skip
