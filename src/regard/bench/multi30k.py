"""Quality in a given time: train English-German on Multi30k from nothing, and score the validation file.

The score is sacreBLEU on lower-cased text, tokenised 13a, of `regard translate` over the whole validation
file with 5 beams; the time is the whole `regard train` process. One run takes most of an hour on two cores,
so a run is one round. There is no peer in this run: the published figure for a small Transformer, 41.02, is
on test2016, joint BPE, beam 5 (LividWo/Revisit-MMT).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from regard.bench.common import Options, regard_json, summarize
from regard.bench.registry import Comparison
from regard.bench.texts import shared

TARGET_BLEU = 35.0


def run(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Train, translate and score."""
    minutes = {**comparison.settings, **options.settings}["minutes"]
    data = shared("data", "multi30k")
    figures: list[float] = []
    seconds: dict[str, list[float]] = {"training": [], "translating": []}
    details: dict[str, Any] = {}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            run, hypothesis = Path(folder) / "run", Path(folder) / "val.de"
            texts = [data / "train.en", data / "train.de", "--valid", data / "val.en", data / "val.de"]
            settings = ["--lowercase", "--minutes", minutes, "--seed", options.seed, "--out", run]
            spent, found = regard_json("train", "translate", *texts, *settings)
            seconds["training"].append(spent)
            words = ["translate", run, "--input", data / "val.en", "--output", hypothesis, "--beams", 5]
            spent, _ = regard_json(*words)
            seconds["translating"].append(spent)
            lines = hypothesis.read_text(encoding="utf-8").splitlines()
        score, signature = _score(lines, (data / "val.de").read_text(encoding="utf-8").splitlines())
        options.report(f"  {score:.2f} BLEU after {seconds['training'][-1]:.0f} s")
        figures.append(score)
        details = {"signature": signature, "steps": found["steps"], "limit_minutes": minutes}
    return summarize(
        comparison.name, {"ours": figures}, unit="BLEU", better="more", options=options, goal=TARGET_BLEU,
        libraries=["sacrebleu"], more={"seconds": seconds, **details},
    )  # fmt: skip


def _score(hypotheses: list[str], references: list[str]) -> tuple[float, str]:
    from sacrebleu.metrics import BLEU

    bleu = BLEU(lowercase=True)
    return bleu.corpus_score(hypotheses, [references]).score, str(bleu.get_signature())
