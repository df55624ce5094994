"""Begin from a trained model: its configuration, tokenizer and weights, with a fresh head where the task needs one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regard.checkpoints.adapters import save_adapter
from regard.checkpoints.configs import read_config as read_family_config
from regard.checkpoints.families import FAMILIES
from regard.checkpoints.files import load_into, load_tensors, read_json, save_tensors
from regard.checkpoints.hub import Place, locate
from regard.checkpoints.load import family_config, model_config, read_tensors, save_weights
from regard.checkpoints.shards import Weights
from regard.config import ModelConfig
from regard.config_recurrent import RecurrentConfig
from regard.data.tokenizer_frames import LANGUAGE
from regard.data.tokenizers import Tokenizer
from regard.errors import CheckpointError, ConfigError, suggest
from regard.models.transformer import build
from regard.nn.lora import add_lora, merged
from regard.tasks.base import Task
from regard.tasks.folders import check_vocabulary, has_tokenizer, need_tokenizer, read_config
from regard.tasks.tuning import Tuning
from regard.training.config import TrainConfig

__all__ = [
    "START",
    "Start",
    "begin",
    "check_tuning",
    "family_of",
    "find_start",
    "fit_start",
    "freeze",
    "open_start",
    "save_tuned",
    "start_weights",
    "store_start",
    "training_window",
    "tune",
]

START = "data/start.safetensors"
"""The weights that a run begins from, in its folder until it has ended."""

CHANGEABLE = ("context", "dropout", "attention_dropout", "ffn_dropout")
"""Fields of ModelConfig that may be given; a smaller context is that of training's windows alone."""

_LAYERS = re.compile(r"(encoder|decoder)\.(\d+)(?:-(\d+))?")
_PARTS = {
    "embedding": r"((target_|segment_|ngram_)?embedding)\.|.*\.(position|window_position|norm_in)\.",
    "encoder": r"(encoder|stack)\.blocks\.",
    "decoder": r"(decoder|stack)\.blocks\.|decoder\.(bridge|context|query|key|energy|readout)\b",
    "pooler": r"pooler\.",
    "head": r"head\.",
}


@dataclass(frozen=True)
class Start:
    """Hold the model that training begins from, its weights not yet read.

    Attributes:
        name: as it was given.
        place: where it is.
        family: the published family it came in; None for a run of ours.
        config: what it is.
        tokenizer: its tokenizer.
        lowercase: whether it was trained on lower-cased text.
    """

    name: str
    place: Place
    family: str | None
    config: ModelConfig
    tokenizer: Tokenizer
    lowercase: bool


def find_start(where: str | Path | None, task: Task, tuning: Tuning, **given: Any) -> Start | None:
    """Find the model to begin from, if there is one, and refuse settings beside it that follow from it.

    Raises:
        CheckpointError, ConfigError: as `open_start`; or settings of tuning without a model to tune.
    """
    if where is None:
        if names := list(tuning.to_dict()):
            raise ConfigError(
                f"{', '.join(names)} is for a model that was trained before; name it with --from."
            )
        return None
    if names := [name for name, value in given.items() if value not in (None, False)]:
        raise ConfigError(
            f"{', '.join(names)} follows from {where}, which training begins from; leave it out."
        )
    return open_start(where, task)


def open_start(where: str | Path, task: Task) -> Start:
    """Find the model to begin from, and refuse what can't be trained for the task.

    Raises:
        CheckpointError: it isn't there, is damaged, has no tokenizer or isn't built here.
        ConfigError: it is of a kind that the task can't use, or its tokenizer asks for what isn't built here.
    """
    place = locate(where)
    folder = place.folder
    read_config(folder)
    if (folder / "regard.json").is_file() and not (folder / "model.safetensors").is_file():
        raise CheckpointError(
            f"{folder} has no model.safetensors: the run was stopped before its first evaluation; go on with --resume."
        )
    with Weights(place.weights) as weights:
        family, config = model_config(folder, weights.names())
    tokenizer = need_tokenizer(Tokenizer.load(folder) if has_tokenizer(folder) else None, where)
    check_vocabulary(folder, tokenizer, config)
    if config.kind not in task.kinds:
        article = "a" if config.kind == "decoder" else "an"
        raise ConfigError(
            f"{task.name} needs a model of kind {' or '.join(task.kinds)}; {where} is {article} {config.kind}."
        )
    codes = [i for i in tokenizer.frame([])[0] if LANGUAGE.fullmatch(tokenizer.id_to_token(i) or "")]
    if codes:
        raise ConfigError(f"{where} marks texts with their languages, with which training isn't built here.")
    if config.kind == "encoder-decoder" and Tokenizer.load_target(folder) is not None:
        raise ConfigError(
            f"{where} has a tokenizer of its own for targets, with which training isn't built here."
        )
    record = read_json(folder / "regard.json") if (folder / "regard.json").is_file() else {}
    lowercase = isinstance(record, dict) and bool(record.get("lowercase", False))
    return Start(str(where), place, family.name if family else None, config, tokenizer, lowercase)


def fit_start(start: Start, task: Task, labels: tuple[str, ...], changes: Mapping[str, Any]) -> ModelConfig:
    """Give the configuration of the model that is trained: the same but for its head, as its family has it.

    Raises:
        ConfigError: a setting that follows from the model.
    """
    allowed = (*(CHANGEABLE if task.joins_documents else CHANGEABLE[1:]), *task.adjustable)
    fixed = [name for name in changes if name not in allowed]
    if fixed:
        raise ConfigError(
            f"{', '.join(fixed)} follows from {start.name}, which training begins from; leave it out."
        )
    if changes.get("context", 0) > start.config.context:
        raise ConfigError(
            f"context={changes['context']} is more than {start.name} has, {start.config.context}; leave it out."
        )
    own = {name: value for name, value in changes.items() if name != "context"}
    wanted = task.model_changes(start.config, labels)
    own["multi_label"] = wanted.get("multi_label", False)
    if wanted["head"] == start.config.head:
        return start.config.replace(labels=labels, **own)
    return (
        _of_family(start, wanted) or start.config.replace(**_no_head(start.config) | dict(wanted))
    ).replace(**own)


def training_window(start: Start, task: Task, given: int | None, batch_tokens: int) -> int | None:
    """Choose how long the windows are that running text is cut into; None for a task that has none.

    A published context may be longer than a whole step, so a step holds eight windows where nothing is given.
    """
    if not task.joins_documents:
        return None
    return given or min(start.config.context, max(16, batch_tokens // 8))


def _of_family(start: Start, wanted: Mapping[str, Any]) -> ModelConfig | None:
    """Give what the family's own class with such a head is; None where it has none."""
    if start.family is None:
        return None
    family = FAMILIES[start.family]
    content = read_json(start.place.folder / "config.json")
    for name in ("model_type", "id2label", "label2id", "num_labels", "problem_type"):
        content.pop(name, None)
    for architecture, head in family.heads.items():
        if (
            head.fields["head"] != wanted["head"]
            or head.fields.get("kind", start.config.kind) != start.config.kind
        ):
            continue
        names = {str(number): label for number, label in enumerate(wanted["labels"])}
        theirs = {**content, "architectures": [architecture], **({"id2label": names} if names else {})}
        try:
            config = read_family_config(family, theirs)
        except ConfigError:
            continue
        if config.kind == start.config.kind:
            return config
    return None


def _no_head(config: ModelConfig) -> dict[str, Any]:
    """Give the fields that belong to a head, as they are without one."""
    bare = ModelConfig(kind="encoder", vocab_size=8)
    names = ("output_bias", "pooler", "label_bias", "output_scale", "logit_softcap", "head_transitions")
    return {name: getattr(bare, name) for name in names} | {"head_transform": False}


def family_of(config: ModelConfig, family: str | None) -> tuple[str | None, dict[str, Any]]:
    """Find the family that a model is saved as, the one it came from before any other; and its config.json."""
    if family is not None:
        try:
            return family_config(config, family)
        except ConfigError:
            pass  # it has no such model, though another may
    return family_config(config)


def start_weights(start: Start, config: ModelConfig, *, seed: int) -> tuple[dict[str, Tensor], list[str]]:
    """Read the weights to begin with; what the model lacks is drawn.

    Returns:
        The whole model's weights by our names; and the names of those that are new.

    Raises:
        CheckpointError: weights other than a head's are missing.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build(config)
    own = module.state_dict(keep_vars=True)
    found = read_tensors(start.place.folder, start.place.weights, config, start.family)
    if (start.config.head, start.config.labels) != (config.head, config.labels):
        tied = {id(p) for name, p in own.items() if not name.startswith("head.")}
        found = {n: t for n, t in found.items() if not n.startswith("head.") or id(own[n]) in tied}
    new = [name for name in own if name not in found]
    if lost := [name for name in new if not name.startswith(("head.", "pooler."))]:
        raise CheckpointError(
            f"{start.name} lacks weights that its own configuration needs: {', '.join(lost[:5])}."
        )
    return {**{name: own[name].detach() for name in new}, **found}, new


def freeze(module: nn.Module, parts: list[str]) -> int:
    """Let parts of a model keep their weights; give how many weights that are.

    Args:
        module: an Encoder, a Decoder or an EncoderDecoder.
        parts: embedding (all tables), encoder or decoder (all layers), encoder.0-5, decoder.3, pooler, head, or the
            beginning of weights' names up to a dot, such as stack.blocks.0.attention.

    Raises:
        ConfigError: a part that this model hasn't, or nothing would be left to learn.
    """
    named = dict(module.named_parameters())
    for part in parts:
        pattern = _pattern(part, module)
        chosen = [name for name in named if re.match(pattern, name)]
        if not chosen:
            known = [
                name for name, expression in _PARTS.items() if any(re.match(expression, n) for n in named)
            ]
            hint = suggest(part, known)
            raise ConfigError(
                f"freeze: this model has no {part!r}. Parts are {', '.join(known)}, layers such as "
                f"{_stack_name(module)}.0-1, or names of weights. {hint}".strip()
            )
        for name in chosen:
            named[name].requires_grad_(False)
    frozen = sum(p.numel() for p in named.values() if not p.requires_grad)
    if all(not p.requires_grad for p in named.values()):
        raise ConfigError("freeze: nothing is left to learn; leave a part out.")
    return frozen


def _stack_name(module: nn.Module) -> str:
    return "decoder" if getattr(module, "causal", False) else "encoder"


def _pattern(part: str, module: nn.Module) -> str:
    if layers := _LAYERS.fullmatch(part):
        first, last = int(layers[2]), int(layers[3] or layers[2])
        single = hasattr(module, "stack")
        if single and layers[1] != _stack_name(module):
            return r"(?!)"
        stack = module.get_submodule("stack" if single else layers[1])
        if first > last or last >= len(stack.get_submodule("blocks")):  # type: ignore[arg-type]
            return r"(?!)"
        return (
            f"{'stack' if single else layers[1]}\\.blocks\\.({'|'.join(map(str, range(first, last + 1)))})\\."
        )
    if part in _PARTS:
        single_other = {"encoder": "decoder", "decoder": "encoder"}.get(part) == _stack_name(module)
        return r"(?!)" if hasattr(module, "stack") and single_other else _PARTS[part]
    return re.escape(part) + r"(\.|$)"


def tune(module: nn.Module, tuning: Tuning, new: list[str]) -> None:
    """Choose what of a model learns: all but what is frozen, or adapters and what is new.

    Raises:
        ConfigError: a part or a target that this model hasn't.
    """
    if tuning.lora is not None:
        add_lora(module, rank=tuning.lora, alpha=tuning.alpha, targets=tuning.targets)
        named = dict(module.named_parameters())
        for name in new:
            if name in named:
                named[name].requires_grad_(True)
    elif tuning.freeze:
        freeze(module, tuning.freeze)


def store_start(
    start: Start, folder: Path, task: Task, config: ModelConfig, tuning: Tuning, training: TrainConfig, *,
    context: int | None,
) -> dict[str, Any]:  # fmt: skip
    """Write the weights that a run begins from into its folder, and give what its record says about them.

    Raises:
        CheckpointError: weights are missing, or can't be written.
        ConfigError: a part or a target of tuning that this model hasn't.
    """
    tensors, new = start_weights(start, config, seed=training.seed)
    check_tuning(config, tuning, new)
    (folder / START).parent.mkdir()
    save_tensors(folder / START, tensors)
    window = training_window(start, task, context, training.batch_tokens)
    return {
        "start": {"from": start.name, "family": start.family, "new": new}, "tuning": tuning.to_dict(),
        **({"window": window} if window else {}),
    }  # fmt: skip


def check_tuning(config: ModelConfig, tuning: Tuning, new: list[str]) -> None:
    """Refuse parts and targets that a model hasn't, before anything is written.

    Raises:
        ConfigError: one isn't there.
    """
    if tuning.lora is not None and isinstance(config, RecurrentConfig):
        raise ConfigError("lora is for a Transformer's layers, and this model is recurrent; leave it out.")
    if tuning.lora is not None or tuning.freeze:
        with torch.device("meta"):
            tune(build(config), tuning, new)


def begin(module: nn.Module, folder: Path, record: Mapping[str, Any]) -> None:
    """Give a run's model the weights that it begins from, and choose what learns; a run from nothing is left alone.

    Raises:
        CheckpointError: the weights are gone, and no state has been saved yet that would replace them.
    """
    start = record.get("start")
    if start is None:
        return
    path = folder / START
    if path.is_file():
        load_into(module, load_tensors(path))
    elif not any((folder / "checkpoints").glob("step-*")):
        raise CheckpointError(f"{path} is missing; the run needs it, so begin the run again.")
    tune(module, Tuning(**record.get("tuning", {})), start["new"])


def save_tuned(
    config: ModelConfig, record: Mapping[str, Any], folder: Path, weights: Mapping[str, Tensor]
) -> None:
    """Write the best weights as their family does, adapters merged; and the adapters by themselves where asked for."""
    start, tuning = record.get("start") or {}, Tuning(**record.get("tuning", {}))
    family = family_of(config, start.get("family"))[0]
    if tuning.lora is not None:
        if tuning.adapter:
            save_adapter(
                folder / "adapter",
                weights,
                config,
                family,
                alpha=tuning.alpha,
                base=start["from"],
                new=start["new"],
            )
        weights = merged(weights, alpha=tuning.alpha)
    save_weights(folder, weights, config, family)
