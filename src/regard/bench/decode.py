"""Continue prompts of GPT-2's size, token by token, or read a long one: tokens a second.

`decode-bf16`, `decode-int8` and `decode-int4` write 128 tokens after 16, one row, our weights in that precision;
`decode-batch8` writes eight rows; `prefill` reads 1,000 tokens and scores what follows. Every side has the same
weights, the same ids and as many threads, and takes the likeliest token each time. The peers run as their
documentation advises for a processor, in each of their precisions; the best of all is what counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regard.bench.common import Options, summarize
from regard.bench.contest import Need, Side, contest, details, libraries
from regard.bench.registry import Comparison

BATCHES = {"decode-batch8": 8}
PEERS = {
    "transformers": ("Transformers", ("fp32", "bf16")),
    "ctranslate2": ("CTranslate2", ("float32", "int8")),
    "llama.cpp": ("Llama", ("F16", "Q8_0", "Q4_0")),
}
PACKAGES = {"llama.cpp": "llama-cpp-python"}
# Token by token the peers take part in precisions that are no coarser than ours.
FINER = {
    "bf16": ("fp32", "bf16", "float32", "F16"),
    "int8": ("fp32", "bf16", "float32", "F16", "int8", "Q8_0"),
}


def run(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Run one of the comparisons of this file."""
    name = comparison.name
    batch = BATCHES.get(name, 1)
    prompt, new = (1000, 0) if name == "prefill" else (16, 128)
    if options.tiny:
        prompt, new = (40, 0) if name == "prefill" else (8, 6)
    sizes = {"batch": batch, "prompt": prompt, "new": new, "vocabulary": 1001 if options.tiny else 50_257}
    precision = options.precision or comparison.precision
    found = sides(comparison, options, precision, sizes)
    weights = matrix_weights(options.tiny)
    outcome = contest(
        found[1:], found[0], options, difference=apart, weights_read=weights if new else 0, reads=1 / batch,
        products=weights if new else weights - _head_weights(options.tiny),
    )  # fmt: skip
    what = "read" if not new else "written"
    return summarize(
        name, outcome.figures, unit=f"tokens/s {what}", better="more", options=options, aims=comparison.aims,
        libraries=libraries(found), ours=f"ours {precision}",
        more={**details(outcome, options), **{key: sizes[key] for key in ("batch", "prompt", "new")}},
    )  # fmt: skip


def sides(comparison: Comparison, options: Options, precision: str, sizes: dict[str, Any]) -> list[Side]:
    """Give the reference, ours, and the peers of a comparison."""
    base = options.work / f"gpt2-{options.seed}{'-tiny' if options.tiny else ''}"
    made: Need = ("gpt2", base, {})
    given = {"seed": options.seed, **sizes}

    def own(chosen: str) -> Side:
        arguments = {**given, "folder": str(base), "precision": chosen}
        return Side(f"ours {chosen}", "regard.bench.gpt2:Ours", chosen, arguments, needs=(made,))

    found = [own("fp32"), own(precision)]
    finer = FINER.get(comparison.precision) if sizes["new"] and sizes["batch"] == 1 else None
    for peer in comparison.peers:
        kind, chosen = PEERS[peer]
        for one in chosen:
            if finer is not None and one not in finer:
                continue
            needs, folder = conversions(peer, one, base)
            arguments = {**given, "folder": str(folder)}
            if peer != "llama.cpp":
                arguments["precision"] = one
            library = PACKAGES.get(peer, peer)
            read = folder if peer == "llama.cpp" else None  # its head is stored finer than the rest
            found.append(
                Side(
                    f"{peer} {one}",
                    f"regard.bench.gpt2:{kind}",
                    one,
                    arguments,
                    library,
                    (made, *needs),
                    read,
                )
            )
    return found


def conversions(peer: str, precision: str, base: Path) -> tuple[tuple[Need, ...], Path]:
    """Give what must be made from the model's folder for a peer, and what the peer reads."""
    if peer == "transformers":
        return (), base
    if peer == "ctranslate2":
        folder = base.with_name(f"{base.name}-ctranslate2-{precision}")
        return (
            (f"{base.name.split('-')[0]}-ctranslate2", folder, {"source": str(base), "detail": precision}),
        ), folder
    half = base.with_name(f"{base.name}-F16.gguf")
    first = ("gpt2-gguf", half, {"source": str(base), "detail": "F16"})
    if precision == "F16":
        return (first,), half
    path = base.with_name(f"{base.name}-{precision}.gguf")
    return (first, ("gpt2-gguf", path, {"source": str(half), "detail": precision})), path


def apart(found: dict[str, Any], truth: dict[str, Any]) -> float | None:
    """Give how far logits are from the reference's, the root of the mean square as a share of their spread."""
    if found["logits"] is None:
        return None
    pairs = [
        (a, b)
        for mine, theirs in zip(found["logits"], truth["logits"], strict=True)
        for a, b in zip(mine, theirs, strict=True)
    ]
    mean = sum(b for _, b in pairs) / len(pairs)
    spread = sum((b - mean) ** 2 for _, b in pairs)
    return float((sum((a - b) ** 2 for a, b in pairs) / spread) ** 0.5)


def matrix_weights(tiny: bool) -> int:
    """Count the weights that a token is multiplied with: 12 layers of 12 x width², and the head."""
    width, layers = (32, 2) if tiny else (768, 12)
    return layers * 12 * width**2 + _head_weights(tiny)


def _head_weights(tiny: bool) -> int:
    return 32 * 1001 if tiny else 768 * 50_257
