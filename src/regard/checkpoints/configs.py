"""Read the config.json of a published family into a ModelConfig, and write it back, by the family's table."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any, get_args, get_type_hints

from regard.checkpoints.misspelt import near_name
from regard.checkpoints.tables import REQUIRED, Family, Head, Key, Settings, Several
from regard.config import ModelConfig, check_types
from regard.config_recurrent import RecurrentConfig
from regard.errors import ConfigError, RegardError, suggest

__all__ = ["activations", "labels", "read_config", "rope", "tokens", "windows", "write_config"]

_NAMES = """
    architectures model_type torch_dtype dtype transformers_version _name_or_path use_cache output_attentions
    output_hidden_states return_dict torchscript use_bfloat16 tf_legacy_loss pruned_heads is_encoder_decoder
    is_decoder cross_attention_hidden_size add_cross_attention tie_encoder_decoder chunk_size_feed_forward
    task_specific_params problem_type finetuning_task tokenizer_class prefix sep_token_id _commit_hash
    attn_implementation _attn_implementation _attn_implementation_autoset pretraining_tp auto_map
    custom_pipelines trust_remote_code code_revision initializer_factor gradient_checkpointing max_length
    min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p
    typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens max_new_tokens
    cache_implementation
"""
_MOST_LABELS = 1_000_000
_MULTI_LABEL = "multi_label_classification"
_EVERYWHERE = frozenset(_NAMES.split())
"""Keys that any configuration may have and that change nothing here; those that name code are never followed."""
_HINTS = get_type_hints(ModelConfig)


def read_config(family: Family, theirs: Settings, tensors: Collection[str] = ()) -> ModelConfig:
    """Make the ModelConfig of a published configuration.

    Args:
        family: its table.
        theirs: config.json.
        tensors: names in the weights, by which optional parts are found.

    Raises:
        ConfigError: a key is missing, misspelt, or asks for something that isn't built here.
    """
    _check_keys(family, theirs)
    if theirs.get("quantization_config"):
        raise ConfigError("these weights are quantised; load the checkpoint that they were made from.")
    head = _head(family, theirs, tensors)
    ours: Settings = {**family.fixed}
    # One value by one first: what is read from several may count on the sizes.
    for key in family.keys:
        ours |= {} if isinstance(key, Several) else _read(family, key, theirs)
    for key in family.keys:
        ours |= _read_several(key, theirs) if isinstance(key, Several) else {}
    for name, tensor in family.optional.items():
        ours[name] = any(found in tensors for found in (tensor, family.prefix + tensor))
    try:
        return ModelConfig.from_dict({**ours, **head.fields, **_labels_of(head, theirs)})
    except ConfigError as error:
        raise ConfigError(_in_their_words(family, str(error))) from None


def write_config(family: Family, config: ModelConfig) -> Settings | None:
    """Make the config.json of a model; None where the family has no such model."""
    if isinstance(config, RecurrentConfig):
        return None
    values = config.to_dict()
    for architecture, head in family.heads.items():
        if any(values[name] != value for name, value in head.fields.items()):
            continue
        theirs: Settings = {"architectures": [architecture], "model_type": family.name}
        try:
            for key in family.keys:
                theirs |= key.write(config) if isinstance(key, Several) else _write(key, values)
            theirs |= _written_labels(config)
            optional = [tensor for name, tensor in family.optional.items() if values[name]]
            if read_config(family, theirs, optional) == config:
                return theirs
        except (ConfigError, KeyError):
            continue
    return None


def _head(family: Family, theirs: Settings, tensors: Collection[str]) -> Head:
    named = theirs.get("architectures")
    named = [_guess(family, tensors)] if named is None or named == [] else named
    name = named[0] if isinstance(named, list) else named
    if not isinstance(name, str):
        raise ConfigError(f"config.json: architectures={_short(named)} must be a list of names of classes.")
    if name not in family.heads:
        hint = suggest(str(name), family.heads) or f"Known are {', '.join(family.heads)}."
        raise ConfigError(f"the class {name!r} of {family.name} isn't built here. {hint}")
    return family.heads[name]


def _guess(family: Family, tensors: Collection[str]) -> str:
    """Take the bare model for weights without a head's prefix, else the family's usual class."""
    names = list(family.heads)
    with_head = not family.prefix or any(name.startswith(family.prefix) for name in tensors)
    return names[min(1, len(names) - 1)] if with_head else names[0]


def _check_keys(family: Family, theirs: Settings) -> None:
    if not isinstance(theirs, dict):
        raise ConfigError("config.json must hold an object.")
    known = _EVERYWHERE | {"id2label", "label2id", "num_labels", "quantization_config"}
    said = {name for name, value in theirs.items() if value is not None}
    missed: list[str] = ["id2label", "num_labels"]  # what a misspelling would be the loss of
    for key in family.keys:
        names = key.keys if isinstance(key, Several) else (key.theirs, *key.aliases)
        known |= set(names)
        if isinstance(key, Several):
            missed += [name for name in names if key.matters and name not in theirs]
        elif not said & set(names):
            missed += names
    for name in theirs:
        near = None if name in known or name.startswith("_") else near_name(name, missed)
        if near is not None:
            raise ConfigError(f"config.json: unknown key {name!r}. did you mean {near!r}?")
    missing = [
        key.theirs
        for key in family.keys
        if isinstance(key, Key) and key.default is REQUIRED and not {key.theirs, *key.aliases} & said
    ]
    if missing:
        raise ConfigError(f"config.json says too little for {family.name}: {', '.join(missing)} is missing.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _cut(text: str) -> str:
    """Shorten the numbers in a message."""
    return re.sub(r"(\d{20})\d{20,}", r"\1...", text)


def _read(family: Family, key: Key, theirs: Settings) -> Settings:
    found = [name for name in (key.theirs, *key.aliases) if name in theirs]
    value = theirs[found[0]] if found else key.default
    if value is None and (key.ours is None or type(None) not in get_args(_HINTS[key.ours])):
        value = key.default  # null is as good as none, where it isn't a value
    if key.ours is None:
        if value != key.default:
            raise ConfigError(f"{family.name} with {key.theirs}={_short(value)} isn't built here.")
        return {}
    if key.swap is not None:
        # The default of a key is in their words, as a value of the file would be.
        return {key.ours: _swapped(key, value)}
    try:
        check_types({key.ours: value})
    except ConfigError as error:
        name = found[0] if found else key.theirs
        raise ConfigError("config.json: " + _cut(str(error).replace(key.ours, name, 1))) from None
    return {key.ours: value}


def _read_several(key: Several, theirs: Settings) -> Settings:
    """Read keys that belong together, with one error for whatever can't be in them."""
    said = {name: value for name, value in theirs.items() if value is not None or name in key.null}
    shown = ", ".join(f"{name}={_short(theirs[name])}" for name in key.keys if name in said)
    try:
        found = key.read(said)
        check_types(found)
    except RegardError as error:
        text = _cut(str(error))
        named = any(name in text for name in key.keys)
        raise ConfigError(text if named or not shown else f"config.json: {shown}: {text}") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            f"config.json: {shown or key.keys[0]} can't be read ({_cut(str(error))})."
        ) from None
    return found


def _in_their_words(family: Family, text: str) -> str:
    """Name the keys of config.json in an error about our fields."""
    for key in family.keys:
        if isinstance(key, Key) and key.ours is not None:
            text = re.sub(rf"\b{key.ours}(?==)", key.theirs, text)
    return text


def _swapped(key: Key, value: Any) -> Any:
    assert key.swap is not None
    try:
        return key.swap.to_ours(value)
    except KeyError:
        known = ", ".join(str(theirs) for theirs, _ in key.swap.pairs)
        raise ConfigError(f"config.json: {key.theirs}={value!r} isn't known; known are {known}.") from None


def _write(key: Key, values: Settings) -> Settings:
    if key.ours is None:
        return {}
    value = values[key.ours]
    return {key.theirs: value if key.swap is None else key.swap.to_theirs(value)}


# ------------------------------------------------------------------------------------ settings of several families


def tokens(
    *, bos: int | None, eos: int | None, pad: int | None, start: int | None = None, size: str = "vocab_size"
) -> Several:
    """Tie the ids of special tokens; the arguments are what a configuration without them means."""
    usual = {"bos": bos, "eos": eos, "pad": pad, "start": start}
    names = {
        "bos": "bos_token_id", "eos": "eos_token_id", "pad": "pad_token_id", "start": "decoder_start_token_id",
    }  # fmt: skip

    def read(theirs: Settings) -> Settings:
        found = {}
        for role, name in names.items():
            value = theirs.get(name, usual[role])
            value = value[0] if isinstance(value, list) and value else value
            inside = type(value) is int and 0 <= value < theirs.get(size, math.inf)
            # Some configurations name an id that the vocabulary hasn't, -1 for instance, and mean none.
            found[f"{role}_id"] = value if inside or not (value is None or type(value) is int) else None
        return found

    def write(config: ModelConfig) -> Settings:
        return {
            name: getattr(config, f"{role}_id")
            for role, name in names.items()
            if role != "start" or config.kind == "encoder-decoder"
        }

    # Some configurations have other names for them, which say nothing new.
    return Several(tuple(names.values()), read, write, null=tuple(names.values()), matters=False)


def rope(*, base: float = 10_000.0) -> Several:
    """Tie rope_theta and rope_scaling, or the rope_parameters that newer files have in their place."""

    def read(theirs: Settings) -> Settings:
        joined = theirs.get("rope_parameters") or {}
        scaling = {**joined, **(theirs.get("rope_scaling") or {})}
        found: Settings = {"rotary_base": float(theirs.get("rope_theta", joined.get("rope_theta", base)))}
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind == "default":
            return found
        if kind not in ("linear", "llama3"):
            raise ConfigError(
                f"rotary positions scaled by {kind!r} aren't built here; known are linear, llama3."
            )
        found |= {"rotary_scaling": kind, "rotary_factor": float(scaling["factor"])}
        if kind == "llama3":
            found |= {
                "rotary_low": float(scaling["low_freq_factor"]), "rotary_high": float(scaling["high_freq_factor"]),
                "rotary_context": scaling["original_max_position_embeddings"],
            }  # fmt: skip
        return found

    def checked(theirs: Settings) -> Settings:
        try:
            return read(theirs)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ConfigError(
                f"config.json: the settings of rotary positions can't be read ({error})."
            ) from None

    def write(config: ModelConfig) -> Settings:
        scaling: Settings | None = None
        if config.rotary_scaling != "none":
            scaling = {"rope_type": config.rotary_scaling, "factor": config.rotary_factor}
        if config.rotary_scaling == "llama3" and scaling is not None:
            scaling |= {
                "low_freq_factor": config.rotary_low, "high_freq_factor": config.rotary_high,
                "original_max_position_embeddings": config.rotary_context,
            }  # fmt: skip
        return {"rope_theta": config.rotary_base, "rope_scaling": scaling}

    return Several(("rope_theta", "rope_scaling", "rope_parameters"), checked, write)


def windows(
    *, size: int | None, every: int = 0, switch: str | None = None, first: str | None = None
) -> Several:
    """Tie sliding_window and layer_types.

    Args:
        size: the window of a configuration that names none.
        every: each so many layers one sees everything; 0: none.
        switch: a key without which there is no window.
        first: a key with the first layer that has one.
    """
    known = ("sliding_window", "layer_types", "sliding_window_pattern", *filter(None, (switch, first)))

    def read(theirs: Settings) -> Settings:
        window = theirs.get("sliding_window", size)
        count = theirs["num_hidden_layers"]
        if window is None or (switch is not None and not theirs.get(switch, False)):
            return {"window": None, "global_layers": []}
        kinds = theirs.get("layer_types")
        if kinds is not None:
            unknown = set(kinds) - {"full_attention", "sliding_attention"}
            if unknown or len(kinds) != count:
                raise ConfigError(
                    f"config.json: layer_types must name {count} layers, full or sliding attention."
                )
            everywhere = [i for i, kind in enumerate(kinds) if kind == "full_attention"]
        else:
            gap = theirs.get("sliding_window_pattern", every)
            if type(gap) is not int or gap < 0:
                raise ConfigError(
                    f"config.json: sliding_window_pattern={_short(gap)} must be a whole number."
                )
            everywhere = [i for i in range(count) if gap and (i + 1) % gap == 0]
            if first is not None:
                everywhere = [i for i in range(count) if i < theirs.get(first, 0)]
        return (
            {"window": window, "global_layers": everywhere} if len(everywhere) < count else {"window": None}
        )

    def write(config: ModelConfig) -> Settings:
        everywhere = range(config.num_layers) if config.window is None else config.global_layers
        kinds = [
            "full_attention" if i in everywhere else "sliding_attention" for i in range(config.num_layers)
        ]
        theirs: Settings = {"sliding_window": config.window}
        if every or switch or first:
            theirs["layer_types"] = kinds
        if switch is not None:
            theirs[switch] = config.window is not None
        if first is not None:
            theirs[first] = next((i for i, kind in enumerate(kinds) if kind[0] == "s"), config.num_layers)
        return theirs

    return Several(known, read, write, null=("sliding_window",))


def _labels_of(head: Head, theirs: Settings) -> Settings:
    kind, problem = head.fields.get("head"), theirs.get("problem_type")
    if kind not in ("classify", "tag"):
        return {}
    found = labels(theirs)
    if kind == "classify" and problem == "regression" and len(found) > 1:
        raise ConfigError(f"config.json: regression with {len(found)} numbers isn't built here; one is.")
    return {"labels": found, "multi_label": kind == "classify" and problem == _MULTI_LABEL}


def labels(theirs: Settings) -> list[str]:
    """Give the names of the classes in their order; without any they are LABEL_0 and so on, two of them."""
    named = theirs.get("id2label")
    if named is None:
        count = theirs.get("num_labels")
        count = 2 if count is None else count
        if type(count) is not int or not 1 <= count <= _MOST_LABELS:
            raise ConfigError(
                f"config.json: num_labels={_short(count)} must be a whole number up to {_MOST_LABELS:,}."
            )
        return [f"LABEL_{i}" for i in range(count)]
    try:
        ordered = sorted((int(i), str(name)) for i, name in named.items())
    except (AttributeError, TypeError, ValueError):
        raise ConfigError("config.json: id2label must map numbers to names.") from None
    if [i for i, _ in ordered] != list(range(len(ordered))):
        raise ConfigError(f"config.json: id2label must number its labels 0 to {len(ordered) - 1}.")
    return [name for _, name in ordered]


def _written_labels(config: ModelConfig) -> Settings:
    if not config.labels:
        return {}
    return {
        "id2label": {str(i): label for i, label in enumerate(config.labels)},
        "label2id": {label: i for i, label in enumerate(config.labels)},
        **({"problem_type": _MULTI_LABEL} if config.multi_label else {}),
    }


def activations(*first: str) -> tuple[tuple[str, str], ...]:
    """List the activations' published names and ours, those named first in front: what is written."""
    pairs = [
        ("gelu", "gelu"), ("gelu_new", "gelu_tanh"), ("gelu_pytorch_tanh", "gelu_tanh"), ("gelu_fast", "gelu_tanh"),
        ("relu", "relu"), ("silu", "silu"), ("swish", "silu"), ("relu2", "relu2"),
    ]  # fmt: skip
    return tuple(sorted(pairs, key=lambda pair: pair[0] not in first))
