"""Classify sentences with a model of BERT-base's size and two labels, batches of 32: sentences a second.

From texts to labels, tokenizer included, on SST-2's development sentences; the peer is transformers' pipeline.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regard.bench.bert import ROWS
from regard.bench.common import Options, summarize
from regard.bench.contest import Need, Side, contest, details, libraries, make
from regard.bench.registry import Comparison
from regard.bench.texts import sentences


def run(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Classify in turns."""
    precision = options.precision or comparison.precision
    base = options.work / f"bert-{options.seed}{'-tiny' if options.tiny else ''}"
    count = 8 if options.tiny else {**comparison.settings, **options.settings}["sentences"]
    data, learned = sentences(200 if options.tiny else 2000, options.seed)
    made: Need = ("bert", base, {"texts": learned})
    given = {"folder": str(base), "seed": options.seed, "count": count}

    def side(label: str, kind: str, chosen: str, library: str | None = None) -> Side:
        arguments = {**given, "precision": chosen}
        return Side(f"{label} {chosen}", f"regard.bench.bert:{kind}", chosen, arguments, library, (made,))

    found = [side("ours", "Ours", "fp32"), side("ours", "Ours", precision)]
    found += [side(peer, "Transformers", one, peer) for peer in comparison.peers for one in ("fp32", "bf16")]
    make(*made[:2], options, **made[2])
    layers = 2 * 12 * 32**2 if options.tiny else 12 * 12 * 768**2
    outcome = contest(
        found[1:], found[0], options, difference=apart, counted="sentences", weights_read=layers, reads=1 / ROWS,
        products=layers * mean_tokens(base, count, options.seed),
    )  # fmt: skip
    more = {
        **details(outcome, options),
        "data": data,
        "sentences": len(sentences(count, options.seed)[1]),
        "batch": 32,
    }
    return summarize(
        comparison.name, outcome.figures, unit="sentences/s", better="more", options=options,
        aims=comparison.aims, libraries=libraries(found), ours=f"ours {precision}", more=more,
    )  # fmt: skip


def mean_tokens(folder: Path, count: int, seed: int) -> float:
    """Count the tokens of a sentence on average, those around it included."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(folder / "tokenizer.json")).encode_batch(sentences(count, seed)[1])
    return sum(len(one.ids) for one in found) / len(found)


def apart(found: dict[str, Any], truth: dict[str, Any]) -> float:
    """Give the largest difference of a probability from the reference's."""
    return max(abs(a - b) for a, b in zip(found["scores"], truth["scores"], strict=True))
