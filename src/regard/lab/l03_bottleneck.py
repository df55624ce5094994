"""L3: one context vector is a bottleneck, which attention removes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

from regard.bench.texts import find_shared
from regard.data.published_sets import read_parallel
from regard.data.world import World
from regard.demo import SCENES, SHAPES, TRAINING_SHAPES
from regard.lab.claim import Claim, Figure, Finding, Measured, Panel, Report, Series, Settings, Size, Status
from regard.lab.compare import Variant, compare
from regard.lab.statistics import difference, estimate
from regard.runs import load_parts
from regard.tasks.metrics import score_texts
from regard.tasks.translate import translate

SIDES = {"one vector": "none", "attention": "additive"}
"""The sides, and the score of each; a model without one has the last state of its encoder alone."""
FIFTHS = 5
LEAST, LITTLE, SKILL = 8.0, 2.0, 10.0
"""BLEU: what attention must bring on the longest fifth, what must be shown to be out of reach before it is said to
bring nothing, and what it must reach on everything to count as trained."""

_COMMON = {
    "context": 256, "optimizer": "muon", "schedule": "linear", "warmup": 40, "label_smoothing": 0.1,
    "tokenizer": "bpe", "dropout": 0.1, "evaluate_every": 10**6, "save_every": 10**6, "lowercase": True,
}  # fmt: skip

Pairs = list[tuple[str, str]]


class Texts(NamedTuple):
    """Hold what is trained on, what rates are chosen on, what is measured, and a name for all of it."""

    name: str
    train: Pairs
    valid: Pairs
    test: Pairs


def read_texts(seed: int, settings: Settings, report: Report) -> Texts:
    """Read Multi30k where it is asked for and found, else write the demo's world.

    Rates are chosen on the last of Multi30k's training sentences, and its val is measured.

    Raises:
        DataError: the files are there, and broken.
    """
    folder = find_shared("data", "multi30k") if settings["data"] == "multi30k" else None
    if folder is not None:
        found = read_parallel("de", "en")(folder)
        train, test = ([(row["source"], row["target"]) for row in found[part]] for part in ("train", "valid"))
        held = settings["valid"]
        return Texts("Multi30k, German to English", train[:-held], train[-held:], test)
    if settings["data"] == "multi30k":
        report("  no Multi30k below REGARD_SHARED or ../shared: the demo's world in its place")

    def written(part: str, count: int) -> Pairs:
        world = World(seed, TRAINING_SHAPES if part == "train" else SHAPES, SCENES)
        return [(one.source, one.target) for one in islice(world.examples(part, count), count)]

    sizes = {"train": settings["written"], "valid": settings["valid"], "test": settings["test"]}
    return Texts(
        "the demo's world, English to French", *(written(part, size) for part, size in sizes.items())
    )


def measure(seed: int, settings: Settings, report: Report) -> Measured:
    """Train both sides at each of the rates, keep the better rate of each, and score the fifths by length."""
    texts = read_texts(seed, settings, report)
    tried = {
        side: {
            rate: Variant(f"{side}, lr {rate:g}", "gru-attention", {"score": score, "bidirectional": True, "lr": rate})
            for rate in settings["rates"]
        }
        for side, score in SIDES.items()
    }  # fmt: skip
    fifths = by_length([source for source, _ in texts.test])
    found: Measured = {"data": texts.name, "bleu": {}, "whole": {}, "rate": {}, "tried": {}, "parameters": {}}
    found["words"] = [sum(len(texts.test[i][0].split()) for i in part) / len(part) for part in fifths]
    with tempfile.TemporaryDirectory(prefix="regard-lab-") as folder:
        files = {part: _write(Path(folder), part, getattr(texts, part)) for part in ("train", "valid")}
        out = Path(folder) / "runs"
        result = compare(
            "translate", [one for side in tried.values() for one in side.values()], files["train"],
            valid=files["valid"], out=out, tokens=settings["steps"] * settings["batch_tokens"], seeds=[seed],
            common={
                **_COMMON, "width": settings["width"], "num_layers": settings["layers"],
                "vocab_size": settings["vocabulary"], "batch_tokens": settings["batch_tokens"],
                "precision": settings["precision"],
            },
            told=lambda line: report(f"  {line}"),
        )  # fmt: skip
        scores = {one["name"]: float(one["metrics"]["bleu"]["mean"]) for one in result["variants"]}
        for side, variants in tried.items():
            rate = max(variants, key=lambda each: scores[variants[each].name])
            report(f"  translating: {side}")
            parts = load_parts(out / variants[rate].folder / f"seed-{seed}")
            sources, references = zip(*texts.test, strict=True)
            said = [one.text for one in translate(parts, sources, beams=1)]
            found["bleu"][side] = [
                score_texts([said[i] for i in part], [references[i] for i in part], lowercase=True).bleu
                for part in fifths
            ]
            found["whole"][side] = score_texts(said, references, lowercase=True).bleu
            found["rate"][side], found["parameters"][side] = rate, parts.config.num_parameters()
            found["tried"][side] = {str(each): scores[one.name] for each, one in variants.items()}
    return found


def by_length(sources: Sequence[str]) -> list[list[int]]:
    """Sort texts by their words and cut them into fifths: the numbers of the texts in each, the shortest first."""
    order = sorted(range(len(sources)), key=lambda i: len(sources[i].split()))
    cuts = [round(k * len(order) / FIFTHS) for k in range(FIFTHS + 1)]
    return [order[a:b] for a, b in pairwise(cuts)]


def _write(folder: Path, part: str, pairs: Pairs) -> list[Path]:
    paths = [folder / f"{part}.{side}" for side in ("source", "target")]
    for path, lines in zip(paths, zip(*pairs, strict=True), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return paths


def conclude(found: Sequence[Measured], settings: Settings) -> Finding:
    """Say what attention brings in short and in long sentences."""

    def of(side: str, fifth: int) -> list[float]:
        return [one["bleu"][side][fifth] for one in found]

    gaps = [difference(of("attention", k), of("one vector", k)) for k in range(FIFTHS)]
    by_seed = [
        [a - b for a, b in zip(of("attention", k), of("one vector", k), strict=True)] for k in (0, FIFTHS - 1)
    ]
    long, growth = gaps[-1], difference(by_seed[1], by_seed[0])
    whole = {side: estimate([one["whole"][side] for one in found]) for side in SIDES}
    status: Status = "fails" if long.below(LITTLE) else "undecided"
    if whole["attention"].mean < SKILL:
        status = "undecided"
    elif long.above(0):
        status = "holds" if long.mean >= LEAST and growth.above(0) else "holds in part"
    data = " and ".join(sorted({one["data"] for one in found}))
    words = [sum(one["words"][k] for one in found) / len(found) for k in range(FIFTHS)]

    def at(fifth: int) -> str:
        return (
            f"{words[fifth]:.3g} words on average, BLEU is {estimate(of('attention', fifth)).text()} with attention "
            f"and {estimate(of('one vector', fifth)).text()} with one vector"
        )

    sentence = (
        f"on {data}, in the longest fifth, {at(-1)}, a gain of {long.text()}; in the shortest, {at(0)}, a gain of "
        f"{gaps[0].text()}; of the whole it is {whole['attention'].text()} and {whole['one vector'].text()}"
    )
    if status == "undecided":
        few = whole["attention"].mean < SKILL
        sentence += "; too little was learned to say" if few else "; the seeds differ too much to say"
    elif status == "holds in part":
        if long.mean < LEAST:
            sentence += f"; that is less than {LEAST:g} in the longest"
        if not growth.above(0):
            sentence += "; that the gain grows with the length isn't shown"
    x = tuple(round(one, 1) for one in words)
    lines = tuple(
        Series(name, x, tuple(estimate(of(name, k)) for k in range(FIFTHS)), name == "one vector")
        for name in SIDES
    )
    axis = "length of the source (words, the mean of a fifth)"
    panels = (
        Panel("Translation by length", axis, "quality (BLEU)", lines),
        Panel(
            "What attention brings",
            axis,
            "gain (BLEU)",
            (Series("attention less one vector", x, tuple(gaps)),),
        ),
    )
    return Finding(
        status, f"{sentence}.", long, "BLEU with attention less that with one vector, in the longest fifth",
        Figure(
            f"GRU encoder-decoders on {data}, greedy, lower-cased; the held-out sentences are sorted by the words of "
            "their sources and cut into fifths.", panels,
        ),
        {
            "data": data, "gains": [one.mean for one in gaps], "growth": growth.mean,
            "whole": {side: one.mean for side, one in whole.items()}, "parameters": found[0]["parameters"],
            "rates": {side: [one["rate"][side] for one in found] for side in SIDES},
        },
    )  # fmt: skip


CLAIM = Claim(
    id="L3",
    title="One vector for a sentence",
    said="One context vector is a bottleneck, and attention removes it: long sentences are what it helps.",
    question="What does attention bring to a recurrent translator, in short sentences and in long ones?",
    method=(
        "Two GRU encoder-decoders learn to translate Multi30k from German to English (where its files "
        "aren't found, the demo's world from English to French; the verdict says which). One has the last "
        "state of its encoder, both directions of it, and reads that at each step (Cho et al. 2014); the "
        "other looks at all states with Bahdanau's attention. Sentences that no training had (Multi30k's "
        "val) are translated greedily, sorted by length and cut into fifths; each fifth has its own BLEU "
        "(sacreBLEU, lower case)."
    ),
    refuted_by=(
        "A gain in the longest fifth that is shown to be less than 2 BLEU. If it is above zero there, but "
        "less than 8 BLEU or not shown to be larger than in the shortest fifth, it holds in part. Where the "
        "gain may be zero as well as 2, or attention itself is below 10 BLEU, it is undecided."
    ),
    fair=(
        "Equal data, order, steps, tokens, width, layers and encoder; the sides differ in the score alone, "
        "and so by some hundredths in parameters. Not equal: time, of which attention takes more; it says "
        "what is learned in these steps."
    ),
    tuning=(
        "Both sides are trained at the same rates, and the better one is chosen, for each seed, on "
        "sentences held out from the training data. The rates lie around the best of four for attention "
        "(docs/log.md); the single vector's own were not known."
    ),
    sizes={
        "laptop": Size(
            3,
            {
                "data": "multi30k", "width": 160, "layers": 1, "vocabulary": 4000, "batch_tokens": 1024, "steps": 400,
                "precision": "bf16", "rates": [8e-3, 1.6e-2], "valid": 500, "written": 20_000, "test": 1000,
            },
        ),
        "gpu": Size(
            5,
            {
                "data": "multi30k", "width": 512, "layers": 1, "vocabulary": 8000, "batch_tokens": 4096, "steps": 1500,
                "precision": "bf16", "rates": [2e-3, 4e-3, 8e-3, 1.6e-2], "valid": 1000, "written": 40_000,
                "test": 1000,
            },
        ),
        "smoke": Size(
            2,
            {
                "data": "world", "width": 16, "layers": 1, "vocabulary": 300, "batch_tokens": 256, "steps": 2,
                "precision": "fp32", "rates": [8e-3], "valid": 4, "written": 40, "test": 10,
            },
        ),
    },
    measure=measure,
    conclude=conclude,
)  # fmt: skip
