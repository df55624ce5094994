"""Which model a verb takes where none is named: the newest run that was trained for it, else a small published one.

Runs are looked for where `regard train`, `reproduce` and `demo` put them. Their settings are read and the header of
their weights, no weight; and a folder in which anything is wrong is none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from regard.config import ModelConfig
from regard.config_recurrent import config_from
from regard.errors import CheckpointError, ConfigError

__all__ = ["choose", "find", "is_name"]

RUNS = Path("runs")
_NAME = re.compile(r"(?=.*\w)[\w.~/\\:@+-]+", re.ASCII)
_SUMMARY = re.compile("summar|highlight|abstract", re.IGNORECASE)
_PATIENCE = 5  # seconds until the hub is one that can't be reached


class _Default(NamedTuple):
    """Say which model is taken for a purpose.

    Attributes:
        verb: what the model must have been made for.
        hub: a small, well-known model of the hub, with safetensors; None: there is none for everybody.
        does: what such a model does.
        get: how to come by one.
        fits: what else its configuration and its family (None: ours) must be.
    """

    verb: str
    hub: str | None
    does: str
    get: str
    fits: Callable[[ModelConfig, str | None], bool] = lambda config, family: True


_DEFAULTS = {
    "translate": _Default(
        "translate", None, "translates",
        "Train one (`regard demo`, `regard train translate DATA`), give --source-language and --target-language",
    ),
    "languages": _Default(
        "translate", "google-t5/t5-small", "translates between named languages", "Fetch it while online",
        lambda config, family: family is not None,
    ),
    "summarize": _Default(
        "summarize", "google-t5/t5-small", "summarises",
        "Train one (`regard train translate DATA --columns article summary`)",
    ),
    "generate": _Default(
        "generate", "openai-community/gpt2", "generates",
        "Train one (`regard reproduce tiny-shakespeare --data DIR`, `regard train generate DATA`)",
    ),
    "chat": _Default(
        "chat", "Qwen/Qwen2.5-0.5B-Instruct", "chats", "Train one (`regard train chat DATA --from MODEL`)"
    ),
    "classify": _Default(
        "classify", "distilbert/distilbert-base-uncased-finetuned-sst-2-english", "classifies",
        "Train one (`regard reproduce sst2 --data DIR`, `regard train classify DATA`)",
    ),
    "entailment": _Default(
        "classify", "cross-encoder/nli-MiniLM2-L6-H768", "knows entailment",
        "Fetch it while online", lambda config, family: _knows_entailment(config),
    ),
    "tag": _Default("tag", "dslim/distilbert-NER", "tags", "Train one (`regard train tag DATA`)"),
    "fill": _Default("fill", "distilbert/distilroberta-base", "fills masks", "Train one (`regard train fill DATA`)"),
    "answer": _Default(
        "answer", "distilbert/distilbert-base-cased-distilled-squad", "answers questions", "Fetch it while online"
    ),
    "score": _Default("score", "openai-community/gpt2", "scores", "Train one (`regard train generate DATA`)"),
    "embed": _Default(
        "embed", "sentence-transformers/all-MiniLM-L6-v2", "makes vectors", "Train one (`regard train fill DATA`)"
    ),
}  # fmt: skip


def is_name(word: str) -> bool:
    """Tell whether a word names a model: it is a path that is there, or could be one or an id of the hub."""
    try:
        there = bool(word) and Path(word).exists()
    except (OSError, ValueError):  # too long, or with a NUL
        there = False
    return there or _NAME.fullmatch(word) is not None


def find(name: str, *, maybe_text: bool = False) -> None:
    """Find a model by its name before anything heavy is loaded; one of the hub is fetched.

    Raises:
        CheckpointError: it is neither here nor on the hub; with `maybe_text` it says how to give a text of that name.
    """
    from regard.checkpoints.hub import locate

    try:
        locate(name)
    except CheckpointError as error:
        hint = f" If {name!r} is a text, name a model before it, or with --model." if maybe_text else ""
        raise CheckpointError(f"{error}{hint}") from error


def choose(purpose: str, note: Callable[[str], None]) -> str:
    """Choose a model for a purpose, `note` which one, and give its name; one of the hub is fetched.

    Raises:
        ConfigError: none is here or can be fetched.
    """
    default = _DEFAULTS[purpose]
    run = _newest(default)
    if run is not None:
        note(f"model: {run}, the newest in {RUNS}/ that {default.does}")
        return str(run)
    none = f"none in {RUNS}/ {default.does}"
    reason = ""
    if default.hub is not None:
        try:
            _fetch(default.hub, lambda: note(f"model: {default.hub} of the hub, as {none}"))
            return default.hub
        except CheckpointError as error:
            reason = "; " + str(error).partition(";")[0]
    raise ConfigError(
        f"no model is named, and {none}{reason}. {default.get}, or name a folder or an id of the hub."
    )


def _fetch(name: str, before: Callable[[], None]) -> None:
    """Have a model of the hub in its cache, where it may be already.

    Raises:
        CheckpointError: it isn't, and can't be fetched.
    """
    from huggingface_hub import HfApi, constants

    from regard.checkpoints.hub import locate

    try:
        locate(name, offline=True)
    except CheckpointError:
        if constants.HF_HUB_OFFLINE:
            raise
        try:
            HfApi().model_info(name, timeout=_PATIENCE)
        except Exception as error:  # the library raises whatever its layers raise
            raise CheckpointError(f"{name} can't be fetched ({type(error).__name__})") from error
        before()
        locate(name)
    else:
        before()


def _newest(default: _Default) -> Path | None:
    """Find the run with the newest weights that fits."""
    weights = [*RUNS.glob("[!.]*/*.safetensors"), *RUNS.glob("[!.]*/[!.]*/*.safetensors")]
    times: dict[Path, float] = {}
    for path in weights:
        try:
            times[path.parent] = max(path.stat().st_mtime, times.get(path.parent, 0.0))
        except OSError:  # it has gone since
            pass
    newest = sorted(times, key=lambda folder: times[folder], reverse=True)
    return next((folder for folder in newest if _fits(folder, default)), None)


def _fits(folder: Path, default: _Default) -> bool:
    """Tell whether a folder holds a whole model that was made for a purpose; of ours no torch is needed to tell."""
    from regard.checkpoints.header import read_header
    from regard.data.tokenizers import Tokenizer
    from regard.tasks.verbs import tasks_for, verbs_of

    tasks = tasks_for(default.verb)
    try:
        settings, record = _json(folder / "config.json"), _json(folder / "regard.json", {})
        if record and _trained(record) not in tasks:
            return False
        family = settings.pop("model_type")
        if family == "regard":
            family, config = None, config_from(settings)
        else:
            from regard.checkpoints.load import model_config

            config = model_config(folder)[1]
        if not record and _published(settings, config).isdisjoint(tasks):
            return False
        if default.verb not in verbs_of(config) or not default.fits(config, family):
            return False
        if (folder / "model.safetensors").is_file():
            header = read_header(folder / "model.safetensors")
            if [config.vocab_size, config.width] not in [one.get("shape") for one in header.values()]:
                return False
        tokenizer = Tokenizer.load(folder)
        if tokenizer.vocab_size > config.vocab_size:
            return False
        return default.verb != "chat" or tokenizer.chat_template is not None
    except Exception:  # whatever is wrong with a folder, it isn't the one
        return False


def _json(path: Path, otherwise: Any = None) -> dict[str, Any]:
    if otherwise is not None and not path.is_file():
        return otherwise
    return json.loads(path.read_text(encoding="utf-8"))


def _trained(record: Mapping[str, Any]) -> str:
    """Give what a run has learned: its task, of which only the column of the targets tells summaries."""
    target = (record["given"].get("columns") or [""])[-1]
    is_summary = record["task"] == "translate" and _SUMMARY.search(target)
    return "summarize" if is_summary else str(record["task"])


def _knows_entailment(config: ModelConfig) -> bool:
    return not config.multi_label and any(label.lower().startswith("entail") for label in config.labels)


def _published(settings: Mapping[str, Any], config: ModelConfig) -> set[str]:
    """Give what a published model has learned: what it can do, less what its files don't say it was made for."""
    from regard.tasks.verbs import verbs_of

    learned, tasks = set(verbs_of(config)), settings.get("task_specific_params") or {}
    if "summarization" not in tasks:
        learned.discard("summarize")
    if tasks and not any(name.startswith("translation") for name in tasks):
        learned.discard("translate")
    if config.head != "none":
        learned.discard("embed")
    return learned
