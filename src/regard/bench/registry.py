"""The comparisons by name: what each compares, with whom, and how much better than each peer it should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final

from regard.bench.common import Options
from regard.errors import ConfigError, suggest


@dataclass(frozen=True)
class Comparison:
    """Name a comparison.

    Attributes:
        name: what one types; its result's file has this name too.
        about: one line.
        module: whose `run(comparison, options)` gives the result.
        peers: the libraries that it compares with; those not installed are left out.
        aims: how many times as good as a peer ours should be, by the name of the peer's side or its first words ("a"
            stands for "a fp32" and "a bf16", of which the better counts); a peer without one is only shown.
        quick: whether it ends within about three minutes on two cores; `regard bench --json` runs these.
        rounds: how often each side runs unless asked otherwise.
        seed: of weights, data and prompts unless asked otherwise.
        precision: of our side; None where it is no question.
        settings: its own settings with their defaults.
    """

    name: str
    about: str
    module: str
    peers: tuple[str, ...] = ()
    aims: Mapping[str, float] = field(default_factory=dict)
    quick: bool = True
    rounds: int = 3
    seed: int = 0
    precision: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


_WRITERS = ("transformers", "ctranslate2", "llama.cpp")
_TRAINING = {"steps": 3, "compile": False, "large_pages": False}
_LENGTHS = (512, 1024, 2048, 4096, 8192, 16_384, 32_768, 131_072)

COMPARISONS: Final[dict[str, Comparison]] = {
    one.name: one
    for one in (
        Comparison(
            "decode-bf16", "128 tokens after 16 with GPT-2's shape, our weights in bf16", "decode", _WRITERS,
            {"llama.cpp F16": 1.0, "transformers": 2.2}, precision="bf16",
        ),
        Comparison(
            "decode-int8", "the same with our weights in int8", "decode", _WRITERS,
            {"llama.cpp Q8_0": 1.1, "ctranslate2 int8": 2.0}, precision="int8",
        ),
        Comparison(
            "decode-int4", "the same with our weights in int4", "decode", _WRITERS, {"llama.cpp Q4_0": 1.2},
            precision="int4",
        ),
        Comparison(
            "decode-batch8", "eight rows at once, our weights in int8", "decode", ("transformers", "ctranslate2"),
            {"transformers bf16": 1.8, "ctranslate2": 1.8}, precision="int8",
        ),
        Comparison(
            "prefill", "1,000 tokens read with GPT-2's shape", "decode", _WRITERS, {"transformers bf16": 1.8},
            precision="bf16",
        ),
        Comparison(
            "translate", "Marian's shape, 4 beams, batches of 32, our weights in int8", "translate",
            ("transformers", "ctranslate2"), {"ctranslate2": 2.5, "transformers": 2.5}, precision="int8",
            settings={"sentences": 128},
        ),
        Comparison(
            "classify", "sentences to labels with BERT-base's shape, batches of 32", "classify", ("transformers",),
            {"transformers bf16": 1.8}, precision="bf16", settings={"sentences": 256},
        ),
        Comparison(
            "start", "from a process's start to a first token with GPT-2's shape", "start", ("transformers",),
            {"transformers": 3.0}, precision="bf16",
        ),
        Comparison(
            "load", "loading published checkpoints and a first text", "load", ("transformers",), {"transformers": 1.0},
            rounds=5, seed=1, settings={"models": ("gpt2", "bert-base", "t5-base", "bart-base", "opus-mt")},
        ),
        Comparison(
            "train-char", "characters of Shakespeare to nanoGPT's loss, from nothing", "train_char", ("plain torch",),
            {"plain torch": 8.0}, quick=False, seed=1,
        ),
        Comparison(
            "train-base", "training the Transformer of 2017, batches of 4,096 tokens, bf16", "train_tokens",
            ("transformers", "torch.nn.Transformer"), {"transformers": 1.5, "torch.nn.Transformer": 1.5}, quick=False,
            seed=1, settings=_TRAINING,
        ),
        Comparison(
            "train-gpt2", "training with GPT-2's shape, two rows of 512 tokens, bf16", "train_tokens",
            ("transformers", "torch.nn.TransformerEncoder"), {"transformers": 1.5, "torch.nn.TransformerEncoder": 1.5},
            quick=False, seed=1, settings=_TRAINING,
        ),
        Comparison(
            "look", "attention of all layers with GPT-2's shape, to 131,072 tokens", "look", ("transformers",),
            {"transformers": 1.0}, quick=False, seed=1, settings={"lengths": _LENGTHS, "layers": 12, "forward": False},
        ),
        Comparison(
            "multi30k", "English to German in 45 minutes, from nothing", "multi30k", quick=False, rounds=1, seed=1,
            settings={"minutes": 45.0},
        ),
        Comparison(
            "page", "the exported page in Chromium: pointing and dragging", "page", quick=False, rounds=1,
            settings={"tokens": 131_072, "window": 0, "moves": 400},
        ),
        Comparison(
            "serve", "tiles of a long text's map while the server is busy", "serve", quick=False,
            settings={"tokens": 131_072, "seconds": 20.0},
        ),
    )
}  # fmt: skip
"""Every comparison by its name, in the order of tables."""


def find(name: str) -> Comparison:
    """Give the comparison of a name.

    Raises:
        ConfigError: there is none; with the nearest one.
    """
    if name not in COMPARISONS:
        hint = suggest(name, COMPARISONS) or f"choose from {', '.join(COMPARISONS)}."
        raise ConfigError(f"unknown comparison {name!r}; {hint}")
    return COMPARISONS[name]


def read_settings(comparison: Comparison, given: Mapping[str, str]) -> dict[str, Any]:
    """Turn a comparison's settings, typed as words, into what they are; the others keep their defaults.

    Raises:
        ConfigError: an unknown setting, or a value that it can't have.
    """
    found = {}
    for name, text in given.items():
        if name not in comparison.settings:
            own = ", ".join(comparison.settings) or "no settings"
            hint = suggest(name, comparison.settings) or f"it has {own}."
            raise ConfigError(f"{comparison.name} has no setting {name!r}; {hint}")
        default = comparison.settings[name]
        try:
            found[name] = _read(text, default)
        except ValueError:
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            raise ConfigError(
                f"{name}={text} is not allowed for {comparison.name}; give one such as {shown}."
            ) from None
    return found


def run(comparison: Comparison, options: Options) -> dict[str, Any]:
    """Run a comparison and give its result.

    Raises:
        RegardError: its data or a library of ours is missing, or a side failed.
    """
    module = import_module(f"regard.bench.{comparison.module}")
    if options.precision is not None and not comparison.precision:
        raise ConfigError(f"{comparison.name} compares no precisions; leave --precision out.")
    result: dict[str, Any] = module.run(comparison, options)
    return result


def _read(text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    if isinstance(default, tuple):
        return tuple(_read(part.strip(), default[0]) for part in text.split(","))
    if isinstance(default, (int, float)):
        value = type(default)(text)
        if not 0 <= value < 1e9 or (value == 0 and default):
            raise ValueError
        return value
    return text
