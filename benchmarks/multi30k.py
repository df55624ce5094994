"""Quality in a given time: train English-German on Multi30k from nothing, and score the validation file.

The score is sacreBLEU on lower-cased text, tokenised 13a, of `regard translate` over the whole validation
file with 5 beams; the time is the whole `regard train` process. One run takes most of an hour on two cores,
so a run is one round. There is no peer in this run: the published figure for a small Transformer, 41.02, is
on test2016, joint BPE, beam 5 (LividWo/Revisit-MMT).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import REPO, finish, parser, shared, summarize

TARGET_BLEU = 35.0
LIMIT_MINUTES = 45.0


def main() -> None:
    """Train, translate and score."""
    made = parser(__doc__, seed=1, rounds=1)
    made.add_argument(
        "--minutes", type=float, default=LIMIT_MINUTES, help="limit of the training, in minutes"
    )
    options = made.parse_args()
    data = shared("data", "multi30k")
    figures: list[float] = []
    seconds: dict[str, list[float]] = {"training": [], "translating": []}
    details: dict[str, Any] = {}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            run, hypothesis = Path(folder) / "run", Path(folder) / "val.de"
            train = [
                "train",
                "translate",
                data / "train.en",
                data / "train.de",
                "--valid",
                data / "val.en",
                data / "val.de",
            ]
            settings = ["--lowercase", "--minutes", options.minutes, "--seed", options.seed, "--out", run]
            spent, found = _regard(*train, *settings)
            seconds["training"].append(spent)
            spent, _ = _regard(
                "translate", run, "--input", data / "val.en", "--output", hypothesis, "--beams", 5
            )
            seconds["translating"].append(spent)
            lines = hypothesis.read_text(encoding="utf-8").splitlines()
        score, signature = _score(lines, (data / "val.de").read_text(encoding="utf-8").splitlines())
        figures.append(score)
        details = {"signature": signature, "steps": found["steps"], "limit_minutes": options.minutes}
    more = {"seconds": seconds, "target_bleu": TARGET_BLEU, **details}
    finish(
        summarize(
            "multi30k",
            {"ours": figures},
            unit="BLEU",
            better="more",
            seed=options.seed,
            libraries=["sacrebleu"],
            more=more,
        ),
        json=options.json,
    )


def _regard(*words: object) -> tuple[float, dict[str, Any]]:
    """Run a verb as a process of its own; give its time and its JSON object."""
    environment = {**os.environ, "PYTHONPATH": str(REPO / "src")}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "regard", *map(str, words), "--json"],
        check=True, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    return time.perf_counter() - begin, json.loads(done.stdout)


def _score(hypotheses: list[str], references: list[str]) -> tuple[float, str]:
    from sacrebleu.metrics import BLEU

    bleu = BLEU(lowercase=True)
    return bleu.corpus_score(hypotheses, [references]).score, str(bleu.get_signature())


if __name__ == "__main__":
    main()
