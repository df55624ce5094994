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
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from regard.bench.common import Options, alternate, is_installed, run_process, summarize
from regard.bench.registry import Comparison
from regard.bench.worker import peak_mib
from regard.errors import ConfigError, DependencyError, suggest

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


def run(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Write each model, load it in turns, and report."""
    names = options.settings.get("models", comparison.settings["models"])
    for name in names:
        if name not in MODELS:
            hint = suggest(name, MODELS) or f"choose from {', '.join(MODELS)}."
            raise ConfigError(f"models={name} is not known; {hint}")
    if not is_installed("transformers"):
        raise DependencyError(
            "transformers, which writes the models, is not installed; run: pip install transformers"
        )
    found = {name: compare(name, options) for name in names}
    for name, sides in found.items():
        line = ", ".join(
            f"{what} {sides['ratios'][what]:.2f}" for what in ("seconds", "first_text", "peak", "added")
        )
        options.report(f"{name}: theirs over ours: {line}")
    worst = min(found, key=lambda name: found[name]["ratios"]["seconds"])
    return summarize(
        comparison.name, found[worst]["seconds"], unit=f"s ({worst}, the least favourable)", better="less",
        options=options, aims=comparison.aims, libraries=("transformers", "safetensors"), more={"models": found},
    )  # fmt: skip


def compare(name: str, options: Options) -> dict[str, Any]:
    """Load one model in turns; give every figure of both sides, and theirs over ours, medians."""
    runs: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        process("write", name, folder, options)

        def side(which: str) -> float:
            figures = json.loads(process(which, name, folder, options))
            for what, figure in figures.items():
                runs.setdefault(what, {}).setdefault(which, []).append(figure)
            return float(figures["seconds"])

        options.report(name)
        alternate(
            {"ours": lambda: side("ours"), "transformers": lambda: side("transformers")}, rounds=options.rounds,
            report=options.report,
        )  # fmt: skip
    medians = {what: {s: statistics.median(v) for s, v in sides.items()} for what, sides in runs.items()}
    return {**runs, "ratios": {what: m["transformers"] / m["ours"] for what, m in medians.items()}}


def process(what: str, name: str, folder: str, options: Options) -> str:
    """Run this file as a process; give what it printed."""
    words = [sys.executable, "-P", "-m", "regard.bench.load", what, name, folder, str(options.seed)]
    return run_process(words)[1]


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
    before = peak_mib() or 0.0
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
    peak = peak_mib() or 0.0
    return {"seconds": seconds, "first_text": text, "peak": peak, "added": peak - before}


def main(what: str, name: str, folder: str, seed: str) -> None:
    """Write a model, or measure one side."""
    if what == "write":
        write(name, folder, int(seed))
    else:
        sys.stdout.write(json.dumps(measure(what, name, folder)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
