"""Translate with a model of Marian's size, 4 beams and batches of 32: sentences a second.

6 and 6 layers, width 512, 8 heads, feed-forwards of 2,048, 32,000 tokens; the sentences are Multi30k's development
sentences, a number for each word. All sides write as many tokens for a batch; see marian.py.
"""

from __future__ import annotations

from typing import Any

from regard.bench.common import Options, summarize
from regard.bench.contest import Need, Side, contest, details, libraries
from regard.bench.decode import conversions
from regard.bench.registry import Comparison
from regard.bench.texts import pairs

PEERS = {
    "transformers": ("Transformers", ("fp32", "bf16")),
    "ctranslate2": ("CTranslate2", ("float32", "int8")),
}
COUNT = 256


def run(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Translate in turns."""
    precision = options.precision or comparison.precision
    base = options.work / f"marian-{options.seed}{'-tiny' if options.tiny else ''}"
    made: Need = ("marian", base, {})
    given = {
        "seed": options.seed, "count": 8 if options.tiny else int(options.settings.get("sentences", COUNT)),
        "vocabulary": 500 if options.tiny else 32_000,
    }  # fmt: skip

    def own(chosen: str) -> Side:
        arguments = {**given, "folder": str(base), "precision": chosen}
        return Side(f"ours {chosen}", "regard.bench.marian:Ours", chosen, arguments, needs=(made,))

    found = [own("fp32"), own(precision)]
    for peer in comparison.peers:
        kind, chosen = PEERS[peer]
        for one in chosen:
            needs, folder = conversions(peer, one, base)
            arguments = {**given, "folder": str(folder), "precision": one}
            found.append(
                Side(f"{peer} {one}", f"regard.bench.marian:{kind}", one, arguments, peer, (made, *needs))
            )
    outcome = contest(found[1:], found[0], options, difference=apart, counted="sentences")
    data, _ = pairs(1, options.seed)
    more = {**details(outcome, options), "data": data, "sentences": given["count"], "beams": 4, "batch": 32}
    return summarize(
        comparison.name, outcome.figures, unit="sentences/s", better="more", options=options,
        target=comparison.target, libraries=libraries(found), ours=f"ours {precision}", more=more,
    )  # fmt: skip


def apart(found: dict[str, Any], truth: dict[str, Any]) -> float:
    """Give the share of translations that begin with another token than the reference's.

    The whole texts of drawn weights go apart at the first near tie, so the first tokens are what can be compared.
    """
    pairs = list(zip(found["tokens"], truth["tokens"], strict=True))
    return sum(mine[:1] != theirs[:1] for mine, theirs in pairs) / len(pairs)
