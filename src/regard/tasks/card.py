"""What a model directory says about itself: README.md for people, generation_config.json for programs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regard.checkpoints.files import atomic_file
from regard.config import ModelConfig
from regard.config_recurrent import RecurrentConfig, config_from
from regard.tasks.generate import TEMPERATURE
from regard.tasks.registry import get_task
from regard.tasks.translate import BEAMS

_USES = {
    "translate": 'regard translate {run} "text"',
    "generate": 'regard generate {run} "beginning of a text"',
    "classify": 'regard classify {run} "text"',
    "tag": 'regard tag {run} "text"',
}


def generation_config(task: str, config: ModelConfig) -> dict[str, Any] | None:
    """Give the settings with which a model writes text, in Hugging Face's names; None for one that writes none."""
    if config.kind == "encoder" or config.head != "lm":
        return None
    ids = {
        "bos_token_id": config.bos_id, "eos_token_id": config.eos_id, "pad_token_id": config.pad_id,
        "decoder_start_token_id": config.start if config.kind == "encoder-decoder" else None,
    }  # fmt: skip
    values: dict[str, Any] = {name: value for name, value in ids.items() if value is not None}
    values["max_length"] = config.context
    if task == "translate":
        values |= {
            "do_sample": False,
            "num_beams": BEAMS,
            "length_penalty": 1.0,
        }
    elif task == "generate":
        values |= {
            "do_sample": True,
            "temperature": TEMPERATURE,
            "top_k": 0,
            "top_p": 1.0,
        }
    return values


def command(record: Mapping[str, Any], run: Path) -> str | None:
    """Write the command that makes this run; None where it was made with a configuration that no flag can say."""
    given = dict(record["given"])
    data = given.pop("data")
    if isinstance(given.get("model"), Mapping) or "fold" in given:
        return None
    words = ["regard", "train", record["task"], *data]
    for name, value in {**given, "out": str(run)}.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{name.replace('_', '-')}")
        elif isinstance(value, (list, tuple)):
            words += [flag, *map(str, value)]
        else:
            words += [flag, str(value)]
    return shlex.join(words)


def write_card(folder: Path, record: Mapping[str, Any]) -> None:
    """Write README.md from the run's record: task, model, data, training, scores, and how it was made.

    Raises:
        OSError: it can't be written.
    """
    with atomic_file(folder / "README.md") as temporary:
        temporary.write_text(_card(folder, record), encoding="utf-8")


def _card(folder: Path, record: Mapping[str, Any]) -> str:
    name, result = folder.resolve().name, record["result"]
    task, config = record["task"], config_from(record["model"])
    chosen = get_task(task, record["given"].get("label_separator"))
    lowered = ", lower-casing" if record["lowercase"] else ""
    about = {
        "Task": f"{task}: {chosen.help}",
        "Model": model_line(config),
        "Tokenizer": f"{record['tokenizer']}, {config.vocab_size:,} tokens{lowered}",
        "Training data": f"{_paths(record['data'])}: {size_line(record['sizes']['train'])}",
        "Held-out data": f"{_paths(record['valid']) if record['valid'] else 'the last tenth of it'}: "
        f"{size_line(record['sizes']['valid'])}",
        "Training": f"{_counted(result['steps'], 'step')}, {_counted(result['tokens'], 'token')}, "
        f"{_counted(result['seconds'], 'second')} in "
        f"{record['precision']}, seed {record['training']['seed']}; {ENDINGS[result['reason']]}",
        "Made with": f"Regard {record['version']}",
    }  # fmt: skip
    lines = [f"# {name}", "", "| | |", "|---|---|"]
    lines += [f"| {title} | {_cell(text)} |" for title, text in about.items()]
    if result["metrics"]:
        lines += ["", "## Scores", "", "| metric | value |", "|---|---:|"]
        lines += [f"| {metric} | {value:.6g} |" for metric, value in result["metrics"].items()]
        lines += ["", f"On the held-out data, with the weights of step {result['best_step']:,}, the best by "
                  f"{chosen.metric}."]  # fmt: skip
        if task == "translate":
            lines[-1] += f" Of the first {record['sizes']['kept']:,} rows; without beam search."
        if signature := result["details"].get("signature"):
            lines += ["", f"BLEU's signature is `{signature}`."]
    if (made_by := command(record, folder)) is not None:
        lines += ["", "## Made by", "", "```sh", made_by, "```"]
    use = _USES.get(task, "regard evaluate {run} DATA").format(run=shlex.quote(str(folder)))
    lines += ["", "## Use", "", "```sh", use, "```"]
    return "\n".join(lines) + "\n"


ENDINGS = {
    "steps": "ended after its steps", "epochs": "ended after its epochs", "minutes": "ended after its minutes",
    "patience": "ended as it no longer got better", "interrupted": "interrupted",
}  # fmt: skip
"""Why a run ended, as a phrase."""


def size_line(size: Mapping[str, int]) -> str:
    """Say how much data there is; running text that is one stream has no rows."""
    shown = [_counted(size["rows"], "row")] if size["rows"] else []
    return ", ".join([*shown, _counted(size["characters"], "character")])


def _counted(number: float, what: str) -> str:
    return f"{number:,.0f} {what}{'' if round(number) == 1 else 's'}"


def model_line(config: ModelConfig) -> str:
    """Say in a line what a model is."""
    layers = _counted(config.num_layers, "layer")
    if config.kind == "encoder-decoder":
        layers = f"{config.num_layers} and {_counted(config.num_decoder_layers or 0, 'layer')}"
    if isinstance(config, RecurrentConfig):
        looks = "no attention" if config.score == "none" else f"{config.score} attention"
        said = (
            looks if config.kind == "encoder-decoder" else "both ways" if config.bidirectional else "one way"
        )
        return (
            f"{config.kind}, {layers} of {config.cell}, width {config.width}, {said}, context {config.context}; "
            f"{config.num_parameters():,} weights"
        )
    return (
        f"{config.kind}, {layers}, width {config.width}, {config.num_heads} heads, context {config.context}, "
        f"{config.position} positions; {config.num_parameters():,} weights"
    )


def _paths(paths: list[str]) -> str:
    return " ".join("standard input" if path == "-" else path for path in paths)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
