"""Time and peak memory of loading published checkpoints, against transformers: gpt2, bert-base, t5-base and others.

Each model has its published size and random weights, written once as its family writes them (fp32, safetensors). A
measurement is a process of its own that has imported its library before the clock starts; the clock covers one call,
`regard.load` against `from_pretrained`, and then both run one short text, so that weights which are only mapped are
paid for in the memory, and in `first_text`, the seconds to the end of that text. Memory is the process's largest
resident size, `peak`, and `added`, that less what the process had before the call, both in MiB. The files are in the
page cache for both.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import alternate, finish, parser, summarize

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", {}),
    "bert-base": ("BertConfig", "BertForMaskedLM", {}),
    "t5-base": (
        "T5Config", "T5ForConditionalGeneration",
        {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "vocab_size": 32_128},
    ),
    "bart-base": (
        "BartConfig", "BartForConditionalGeneration",
        {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 12,
         "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072},
    ),
    "opus-mt": (
        "MarianConfig", "MarianMTModel",
        {"d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
         "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "vocab_size": 58_101,
         "pad_token_id": 58_100, "eos_token_id": 0, "decoder_start_token_id": 58_100, "scale_embedding": True,
         "activation_function": "swish", "max_position_embeddings": 512},
    ),
}  # fmt: skip


def main() -> None:
    """Write each model, load it in turns, and report."""
    made = parser(__doc__, seed=1, rounds=5)
    made.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="which to load")
    made.add_argument(
        "--side", nargs=3, metavar=("SIDE", "MODEL", "FOLDER"), help="one measurement, in this process"
    )
    made.add_argument(
        "--write", nargs=2, metavar=("MODEL", "FOLDER"), help="write a model with random weights"
    )
    options = made.parse_args()
    if options.write:
        write(*options.write, options.seed)
        return
    if options.side:
        print(json.dumps(measure(*options.side)))
        return
    found = {name: compare(name, options.rounds, options.seed) for name in options.models}
    for name, sides in found.items():
        line = ", ".join(
            f"{what} {sides['ratios'][what]:.2f}" for what in ("seconds", "first_text", "peak", "added")
        )
        print(f"{name}: theirs over ours: {line}", file=sys.stderr)
    worst = min(found, key=lambda name: found[name]["ratios"]["seconds"])
    result = summarize(
        "load", found[worst]["seconds"], unit=f"s ({worst}, the least favourable)", better="less", seed=options.seed,
        target=1.0, libraries=("transformers", "safetensors"), more={"models": found},
    )  # fmt: skip
    finish(result, json=options.json)


def compare(name: str, rounds: int, seed: int) -> dict[str, Any]:
    """Load one model in turns; give every figure of both sides, and theirs over ours, medians."""
    runs: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        process(["--write", name, folder, "--seed", str(seed)])

        def side(which: str) -> float:
            figures = json.loads(process(["--side", which, name, folder]))
            for what, figure in figures.items():
                runs.setdefault(what, {}).setdefault(which, []).append(figure)
            return float(figures["seconds"])

        alternate({"ours": lambda: side("ours"), "transformers": lambda: side("transformers")}, rounds=rounds)
    medians = {what: {s: statistics.median(v) for s, v in sides.items()} for what, sides in runs.items()}
    return {**runs, "ratios": {what: m["transformers"] / m["ours"] for what, m in medians.items()}}


def process(words: list[str]) -> str:
    """Run this file once more; give what it printed."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def write(name: str, folder: str, seed: int) -> None:
    """Write a model with random weights as its family does."""
    import torch
    import transformers

    config, architecture, settings = MODELS[name]
    torch.manual_seed(seed)
    model = getattr(transformers, architecture)(getattr(transformers, config)(**settings))
    model.save_pretrained(folder)


def measure(side: str, name: str, folder: str) -> dict[str, float]:
    """Load a model and run one text; seconds to load, seconds to the text's end, and MiB at most."""
    import torch

    ids = torch.tensor([[5, 6, 7, 8]])
    both = name in ("t5-base", "bart-base", "opus-mt")
    if side == "ours":
        import regard
        import regard.model

        load = lambda: regard.load(Path(folder)).module  # noqa: E731
    else:
        import transformers

        kind = getattr(transformers, MODELS[name][1])
        load = lambda: kind.from_pretrained(folder)  # noqa: E731
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    model = load()
    seconds = time.perf_counter() - began
    with torch.inference_mode():
        if not both:
            model(ids)
        elif side == "ours":
            model(ids, ids)
        else:
            model(input_ids=ids, decoder_input_ids=ids)
    text = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "first_text": text, "peak": peak / 1024, "added": (peak - before) / 1024}


if __name__ == "__main__":
    main()
