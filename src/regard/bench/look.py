"""Attention at any length: time and peak memory of a look at a decoder of GPT-2's size, from 512 to 131,072 tokens.

A measurement is a process of its own: a decoder with 12 layers, 12 heads and width 768 in bf16 with random weights
reads random tokens once, all of its layers are captured, and then these are timed for one head in the middle: the first
picture (a preview of the whole map, 512 cells a side), an exact row, windows of 512 x 512 cells at every zoom (the
slowest counts), and the exact pyramid. `forward` is the same pass with torch's fused kernel and nothing kept. Memory is
the process's largest resident size, what is mapped from files included.

The peer is transformers with eager attention and `output_attentions`, the way its documentation gives to get weights;
it stores every matrix, and stops at 4,096 tokens, where the two are compared.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

from regard.bench.common import Options, alternate, is_installed, run_process, summarize
from regard.bench.registry import Comparison
from regard.bench.worker import peak_mib

PEERS_LAST = 4096
VOCABULARY = 50_257
TARGETS = {
    "capture_s_at_32768": 90, "capture_s_at_131072": 900, "peak_gib_at_131072": 16, "picture_s": 3, "pyramid_s": 60,
    "window_s": 0.3, "row_s": 0.1,
}  # fmt: skip


def run(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Measure each length in a process of its own, the peer's in turns, and report.

    `forward` times the pass without a capture too; `layers` of the decoder may be fewer, a long text takes each the
    same time.
    """
    chosen = {**comparison.settings, **options.settings}
    lengths, layers = chosen["lengths"], chosen["layers"]
    peers_last = PEERS_LAST if is_installed("transformers") else 0
    left_out = {} if peers_last else {"transformers": "transformers is not installed"}
    rows: dict[str, dict[str, Any]] = {}
    compared = max((n for n in lengths if n <= peers_last), default=None)
    figures: dict[str, list[float]] = {}
    for length in lengths:
        runs: dict[str, list[dict[str, float]]] = {}

        def take(side: str, length: int = length, runs: dict[str, Any] = runs) -> float:
            found = measure(side, length, options.seed, layers)
            runs.setdefault(side, []).append(found)
            return found["capture_s"]

        sides = {"ours": lambda: take("ours")}
        if chosen["forward"]:
            sides["forward"] = lambda: take("forward")
        if length <= peers_last:
            sides["transformers"] = lambda: take("transformers")
        options.report(f"{length:,} tokens")
        # A long one takes minutes and varies little: once.
        rounds = options.rounds if length <= PEERS_LAST else 1
        found = alternate(sides, rounds=rounds, report=options.report)
        if length == compared:
            figures = {side: found[side] for side in found if side != "forward"}
        rows[str(length)] = {
            side: {key: statistics.median(run[key] for run in some) for key in some[0]}
            for side, some in runs.items()
        }
        options.report(json.dumps(rows[str(length)]))
    if not figures:
        figures = {"ours": [rows[str(lengths[-1])]["ours"]["capture_s"]]}
    return summarize(
        "look" if layers == 12 else f"look-{layers}-layers", figures,
        unit=f"s (a capture of all layers at {compared or lengths[-1]:,} tokens)",
        better="less", options=options, aims=comparison.aims, libraries=("transformers",),
        more={"lengths": rows, "targets": TARGETS, "left_out": left_out},
    )  # fmt: skip


def measure(side: str, length: int, seed: int, layers: int) -> dict[str, float]:
    """Run this file as a process for one measurement."""
    words = [sys.executable, "-P", "-m", "regard.bench.look", side, str(length), str(seed), str(layers)]
    found: dict[str, float] = json.loads(run_process(words)[1])
    return found


def ours(length: int, seed: int, layers: int) -> dict[str, float]:
    """Capture all layers, then look at one head in every way."""
    import torch

    from regard.look.capture import capture
    from regard.look.tiles import Pyramid

    module, ids = _model(length, seed, layers)
    before = _peak()
    began = time.perf_counter()
    with capture() as kept:
        module.hidden(ids)
    found = {"capture_s": time.perf_counter() - began, "capture_peak_gib": _peak()}
    layer, head = kept.of()[f"decoder.{layers // 2}"], 5

    def timed(name: str, work: Any) -> None:
        began = time.perf_counter()
        work()
        found[name] = max(found.get(name, 0.0), time.perf_counter() - began)

    pyramid = Pyramid([(layer, head)])
    timed("picture_s", lambda: pyramid.preview(512))
    for row in (length // 3, length - 1):
        timed("row_s", lambda row=row: layer.row(head, row))
    timed("pyramid_s", pyramid.build)
    cell = 1
    while cell * 512 <= 2 * length:
        at = max(0, length - 512 * cell) // cell * cell
        timed("window_s", lambda cell=cell, at=at: pyramid.window(at, at // 2 // cell * cell, cell=cell))
        cell *= 2
    found["error"] = layer.error
    found["exact"] = float(pyramid.window(cell=1, row=length - 512, column=0, kind="max").sampled is None)
    found["peak_gib"], found["before_gib"] = _peak(), before
    found["threads"] = torch.get_num_threads()
    return found


def forward(length: int, seed: int, layers: int) -> dict[str, float]:
    """Run the same pass and keep nothing."""
    import torch

    module, ids = _model(length, seed, layers)
    with torch.inference_mode():
        began = time.perf_counter()
        module.hidden(ids)
    return {"capture_s": time.perf_counter() - began, "peak_gib": _peak()}


def transformers(length: int, seed: int, layers: int) -> dict[str, float]:
    """Get every matrix of the same architecture from transformers, in bf16."""
    import torch
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(seed)
    config = GPT2Config(
        n_positions=length,
        n_layer=layers,
        vocab_size=VOCABULARY,
        attn_implementation="eager",
        use_cache=False,
    )
    model = GPT2Model(config).bfloat16().eval()
    ids = torch.randint(VOCABULARY, (1, length))
    with torch.inference_mode():
        began = time.perf_counter()
        attentions = model(ids, output_attentions=True).attentions
        assert len(attentions) == layers
    return {"capture_s": time.perf_counter() - began, "peak_gib": _peak()}


def _model(length: int, seed: int, layers: int) -> tuple[Any, Any]:
    import torch

    from regard.models.families import preset
    from regard.models.transformer import build

    torch.manual_seed(seed)
    module = build(preset("gpt2", context=length, num_layers=layers)).bfloat16().eval()
    return module, torch.randint(VOCABULARY, (1, length))


def _peak() -> float:
    return (peak_mib() or 0.0) / 1024


SIDES = {"ours": ours, "forward": forward, "transformers": transformers}


def main(side: str, *numbers: str) -> None:
    """Measure one side at one length."""
    sys.stdout.write(json.dumps(SIDES[side](*map(int, numbers))) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
