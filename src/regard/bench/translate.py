"""Translate with a model of Marian's size, 4 beams and batches of 32: sentences a second.

6 and 6 layers, width 512, 8 heads, feed-forwards of 2,048, 32,000 tokens; the sentences are Multi30k's development
sentences, a number for each word. All sides write as many tokens for a batch; see marian.py.
"""

from __future__ import annotations

from typing import Any

from regard.bench.common import Options, summarize
from regard.bench.contest import Need, Side, contest, details, libraries
from regard.bench.decode import apart, conversions
from regard.bench.marian import BEAMS, Batch, batches
from regard.bench.registry import Comparison
from regard.bench.texts import pairs

PEERS = {
    "transformers": ("Transformers", ("fp32", "bf16")),
    "ctranslate2": ("CTranslate2", ("float32", "int8")),
}


def run(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Translate in turns."""
    precision = options.precision or comparison.precision
    base = options.work / f"marian-{options.seed}{'-tiny' if options.tiny else ''}"
    made: Need = ("marian", base, {})
    given = {
        "seed": options.seed, "count": 8 if options.tiny else {**comparison.settings, **options.settings}["sentences"],
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
    work = batches(given["count"], options.seed, given["vocabulary"])
    count = sum(len(sources) for sources, _ in work)
    decoder, products = weights(work, given["vocabulary"], options.tiny)
    outcome = contest(
        found[1:], found[0], options, difference=apart, counted="sentences", weights_read=decoder,
        reads=sum(tokens for _, tokens in work) / count, products=products / count,
    )  # fmt: skip
    data, _ = pairs(1, options.seed)
    more = {**details(outcome, options), "data": data, "sentences": count, "beams": 4, "batch": 32}
    return summarize(
        comparison.name, outcome.figures, unit="sentences/s", better="more", options=options,
        aims=comparison.aims, libraries=libraries(found), ours=f"ours {precision}", more=more,
    )  # fmt: skip


def weights(work: list[Batch], vocabulary: int, tiny: bool) -> tuple[int, int]:
    """Count the decoder's weights, which each step reads, and the multiplications with weights of all the work.

    A layer has 4 x width² weights for attention and 8 x width² for its feed-forward; in the decoder 4 x width² more
    look at the source, half of them once for each of its tokens.
    """
    width, layers = (32, 2) if tiny else (512, 6)
    square, head = layers * width**2, vocabulary * width
    read = sum(len(row) for sources, _ in work for row in sources)
    written = sum(len(sources) * tokens for sources, tokens in work) * BEAMS
    return 14 * square + head, read * (12 + 2) * square + written * (14 * square + head)
