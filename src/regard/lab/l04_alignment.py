"""L4: attention aligns the words of a source and its translation by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regard.demo_heads import bitext
from regard.lab.claim import Claim, Figure, Finding, Measured, Panel, Report, Series, Settings, Size, Status
from regard.lab.compare import Variant, compare
from regard.lab.statistics import difference, estimate
from regard.lab.translating import held_out, quality, world_files
from regard.look.alignment import Bitext, find_aligners
from regard.runs import load_parts

GRU, TRANSFORMER = "GRU's attention", "Transformer's best head"
UNIFORM, DIAGONAL, FLOOR = "a word at random", "the diagonal", "one link a word at best"
LEAST = 0.05
"""How much lower than the diagonal's an error rate must be to count as an alignment."""

_COMMON = {
    "context": 128, "optimizer": "muon", "schedule": "linear", "warmup": 40, "label_smoothing": 0.1,
    "precision": "fp32", "tokenizer": "bpe", "dropout": 0.0, "evaluate_every": 10**6, "save_every": 10**6,
}  # fmt: skip
_TRANSFORMER = {
    "norm_placement": "post", "norm": "layernorm", "activation": "relu", "position": "sinusoidal",
    "scale_embeddings": True,
}  # fmt: skip


def variants(settings: Settings) -> dict[str, dict[float, Variant]]:
    """Name the sides, and what each trains with every one of its rates."""
    made: dict[str, dict[float, Variant]] = {GRU: {}, TRANSFORMER: {}}
    for rate in settings["rates"]["gru"]:
        more = {"width": settings["width"], "num_layers": 1, "lr": rate}
        made[GRU][rate] = Variant(f"gru-{rate:g}", "gru-attention", more)
    for rate in settings["rates"]["transformer"]:
        more = {
            "width": settings["width"],
            "num_layers": settings["layers"],
            "num_heads": settings["heads"],
            "lr": rate,
        }
        made[TRANSFORMER][rate] = Variant(f"transformer-{rate:g}", None, {**_TRANSFORMER, **more})
    return made


def measure(seed: int, settings: Settings, report: Report) -> Measured:
    """Train both translators, keep the better rate of each, and compare where they look with the gold alignment."""
    found: Measured = {
        "error": {},
        "agreement": {},
        "bleu": {},
        "rate": {},
        "where": {},
        "parameters": {},
        "tried": {},
    }
    sides = variants(settings)
    valid, test = (
        held_out(seed, part, settings[size]) for part, size in (("valid", "search"), ("test", "test"))
    )
    with world_files(seed, settings) as world:
        files = {part: [world / f"{part}.en", world / f"{part}.fr"] for part in ("train", "valid")}
        out = world / "runs"
        result = compare(
            "translate", [one for side in sides.values() for one in side.values()], files["train"],
            valid=files["valid"], out=out, tokens=settings["tokens"], seeds=[seed],
            common={**_COMMON, "vocab_size": settings["vocabulary"], "batch_tokens": settings["batch_tokens"]},
            told=lambda line: report(f"  {line}"),
        )  # fmt: skip
        scores = {one["name"]: float(one["metrics"]["bleu"]["mean"]) for one in result["variants"]}
        for name, tried in sides.items():
            rate = max(tried, key=lambda each: scores[tried[each].name])
            report(f"  aligning: {name}")
            parts = load_parts(out / tried[rate].folder / f"seed-{seed}")
            network: Any = parts.module
            halves = [[bitext(example, parts) for example in half] for half in (valid, test)]
            (best, *_), every = find_aligners(network, *halves, pad=parts.config.pad_id or 0, top=1)
            found["rate"][name], found["where"][name] = rate, str(best.spot)
            found["tried"][name] = {str(each): scores[one.name] for each, one in tried.items()}
            found["parameters"][name] = parts.config.num_parameters()
            found["bleu"][name] = quality(parts, test)["bleu"]
            found["error"][name], found["agreement"][name] = best.error, best.agreement
        found["heads"] = sum(one.error for one in every.heads.values()) / len(every.heads)
    for name, line in ((UNIFORM, every.guessing), (DIAGONAL, every.diagonal)):
        found["error"][name], found["agreement"][name] = line.error, line.agreement
    found["error"][FLOOR] = least_error(halves[1])
    return found


def least_error(texts: Sequence[Bitext]) -> float:
    """Give the error rate that is left where each target word has one link, and all of them are right."""
    links = sum(len(text.target_words) for text in texts)
    return 1 - 2 * links / (links + sum(len(set(text.pairs)) for text in texts))


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say whether what is looked at is what is translated."""

    def of(name: str) -> list[float]:
        return [one["error"][name] for one in found]

    gain = {name: difference(of(DIAGONAL), of(name)) for name in (GRU, TRANSFORMER)}
    aligns = [name for name in gain if gain[name].above(LEAST)]
    status: Status = "fails" if all(one.below(LEAST) for one in gain.values()) else "undecided"
    if aligns:
        status = "holds" if len(aligns) == len(gain) else "holds in part"
    sentence = (
        f"one link a target word, to the source word that gets most, has an alignment error rate of "
        f"{estimate(of(GRU)).text('%', 3, 100)} by the {GRU} and {estimate(of(TRANSFORMER)).text('%', 3, 100)} by the "
        f"{TRANSFORMER}, against {estimate(of(DIAGONAL)).text('%', 3, 100)} by the diagonal and "
        f"{estimate(of(UNIFORM)).text('%', 3, 100)} by a word at random; no such link could do better than "
        f"{estimate(of(FLOOR)).text('%', 3, 100)}, and the mean of the Transformer's heads has "
        f"{estimate([one['heads'] for one in found]).text('%', 3, 100)}"
    )
    rest = [name for name in gain if name not in aligns]
    if rest:
        sentence += f"; not shown to align: {', '.join(rest)}"
    names = (GRU, TRANSFORMER, "Transformer's heads, the mean", DIAGONAL, UNIFORM, FLOOR)
    errors = (of(GRU), of(TRANSFORMER), [one["heads"] for one in found], of(DIAGONAL), of(UNIFORM), of(FLOOR))
    bleu: Mapping[str, Any] = {name: estimate([one["bleu"][name] for one in found]) for name in gain}
    panels = (
        Panel(
            "Which source word is a target word's", "who chooses", "alignment error rate (0 is best)",
            (Series("error", names, tuple(map(estimate, errors))),),
        ),
        Panel(
            "How well they translate", "model", "quality (BLEU)",
            (Series("BLEU", ("GRU", "Transformer"), (bleu[GRU], bleu[TRANSFORMER])),),
        ),
    )  # fmt: skip
    return Finding(
        status, f"{sentence}.", gain[GRU],
        "alignment error rate of the diagonal less that of the GRU's attention (0 to 1)",
        Figure(
            "Nobody told the models which words belong together; the world that wrote the sentences knows. What has "
            "several heads or ways of reading a row was chosen on other sentences.", panels,
        ),
        {
            "where": {name: [one["where"][name] for one in found] for name in gain}, "aligns": aligns,
            "bleu": {name: bleu[name].mean for name in gain}, "parameters": found[0]["parameters"],
            "agreement": {
                name: estimate([one["agreement"][name] for one in found]).mean for name in (*gain, DIAGONAL, UNIFORM)
            },
        },
    )  # fmt: skip


CLAIM = Claim(
    id="L4",
    title="Attention aligns",
    said="Attention aligns source and target by itself: what it looks at is the word that it translates.",
    question="Does the source word that gets most attention belong to the word that is written?",
    method=(
        "A GRU with attention (Bahdanau's) and a Transformer learn to translate the demo's world, whose "
        "grammar knows which words belong together. Weights become links so: the pieces of a source word "
        "are summed, and each target word is linked with the source word that gets most (argmax), by the "
        "row in which its first piece is written, or by the mean of the rows that have read its pieces. The "
        "way of reading, and the Transformer's head, are chosen on the validation sentences and measured on "
        "test sentences with combinations that training never had. Measured is the alignment error rate of "
        "Och and Ney 2003, 1 - (|A ∩ S| + |A ∩ P|) / (|A| + |S|); all gold pairs are sure, so that the "
        "possible ones are the same (P = S). Since a word may belong to several, one link a word can't "
        "reach 0."
    ),
    refuted_by=(
        "Error rates of both that are shown not to be 5 points below the diagonal's, which links each word "
        "with the one equally far in its sentence. If one of the two is shown to be, it holds in part; if "
        "neither is shown either way, it is undecided."
    ),
    fair=(
        "Equal data, order, tokens, width and vocabulary. Not equal: layers (one of the GRU, two and more "
        "of the Transformer), and so parameters; and the Transformer has several heads to choose from where "
        "the GRU has one attention. The mean of its heads stands beside the best."
    ),
    tuning=(
        "Two rates for each, around those known from other runs, and the one with more BLEU on validation "
        "sentences."
    ),
    sizes={
        "laptop": Size(
            3,
            {
                "width": 96, "layers": 2, "heads": 4, "vocabulary": 2000, "batch_tokens": 1024, "tokens": 500_000,
                "rates": {"gru": [8e-3, 1.6e-2], "transformer": [4e-3, 8e-3]},
                "primer": 6000, "whole": 8000, "valid": 100, "search": 100, "test": 300,
            },
        ),
        "gpu": Size(
            5,
            {
                "width": 256, "layers": 3, "heads": 8, "vocabulary": 3000, "batch_tokens": 4096, "tokens": 4_000_000,
                "rates": {"gru": [4e-3, 8e-3], "transformer": [2e-3, 4e-3]},
                "primer": 6000, "whole": 40_000, "valid": 200, "search": 400, "test": 1200,
            },
        ),
        "smoke": Size(
            2,
            {
                "width": 16, "layers": 1, "heads": 2, "vocabulary": 400, "batch_tokens": 512, "tokens": 1024,
                "rates": {"gru": [8e-3], "transformer": [4e-3]},
                "primer": 20, "whole": 60, "valid": 6, "search": 6, "test": 8,
            },
        ),
    },
    measure=measure,
    conclude=conclude,
)  # fmt: skip
