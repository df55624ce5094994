"""How a published model is meant to write: generation_config.json, or what older files say in config.json.

generation_config.json ──> Published ──> SearchConfig and transforms for prompts of one length ──> search
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.config import ModelConfig
from regard.errors import ConfigError, RegardError
from regard.generate.config import NO_LIMIT, EarlyStopping, SearchConfig

Settings = dict[str, Any]

if TYPE_CHECKING:
    from regard.generate.logits import Transform

__all__ = ["Published", "generation_settings", "search_config"]

# What the writers of these files mean by a key that isn't there.
_TOP_K, _MAX_LENGTH = 50, 20

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "penalty_alpha": (0,), "encoder_repetition_penalty": (1,), "encoder_no_repeat_ngram_size": (0,),
    "guidance_scale": (1,), "exponential_decay_length_penalty": (), "sequence_bias": ({},), "force_words_ids": ([],),
    "constraints": ([],), "watermarking_config": (), "dola_layers": (), "stop_strings": ([],), "max_time": (),
    "forced_decoder_ids": ([],),
}  # fmt: skip
"""Settings that aren't built here, with the values at which they change nothing."""
_OF_ENCODERS = ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size")
_USED: dict[str, Callable[[SearchConfig], bool]] = {
    "penalty_alpha": lambda config: config.temperature == 0 and config.num_beams == 1,
    "force_words_ids": lambda config: config.num_beams > 1,
    "constraints": lambda config: config.num_beams > 1,
    "do_sample": lambda config: config.temperature > 0,
}
"""The searches that some of them belong to; the others are for every search."""
_READ = """
    bad_words_ids begin_suppress_tokens bos_token_id decoder_start_token_id diversity_penalty do_sample early_stopping
    eos_token_id epsilon_cutoff eta_cutoff forced_bos_token_id forced_eos_token_id length_penalty max_length
    max_new_tokens min_length min_new_tokens min_p no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
    pad_token_id renormalize_logits repetition_penalty suppress_tokens temperature top_k top_p typical_p
"""
_ROLES = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")


def _no_task(name: str) -> TaskSettings | None:
    """Know no task."""
    return None


@dataclass(frozen=True)
class Published:
    """Hold how a published model is meant to write.

    Attributes:
        config: how tokens are chosen; its `max_tokens` and `min_tokens` hold where the next two are None.
        max_length: at most this many tokens, the prompt (or the decoder's first token) and padding counted.
        min_length: no end before so many, counted likewise.
        eos: the tokens that end a text.
        pad_id: what fills rows that have ended.
        start_id: the first token of an encoder-decoder's target; None for a decoder.
        first: the token that must follow `start_id`: a language's, for instance.
        last: the tokens of which the last possible one must be.
        forbidden: runs of tokens that never come.
        forbidden_first: tokens that don't begin a text.
        unbuilt: settings that aren't built here, and how the file says them: what would need one is refused.
        tasks: the names of the tasks that config.json has settings for.
        task: gives what config.json's `task_specific_params` says of a task; None where it says nothing.
    """

    config: SearchConfig
    max_length: int | None
    min_length: int | None
    eos: tuple[int, ...]
    pad_id: int
    start_id: int | None
    first: int | None = None
    last: tuple[int, ...] = ()
    forbidden: tuple[tuple[int, ...], ...] = ()
    forbidden_first: tuple[int, ...] = ()
    unbuilt: tuple[tuple[str, str], ...] = ()
    tasks: tuple[str, ...] = ()
    task: Callable[[str], TaskSettings | None] = field(default=_no_task, repr=False, compare=False)

    @property
    def limits_length(self) -> bool:
        """Whether a file says how long a text may be."""
        return self.max_length is not None or self.config.max_tokens != SearchConfig().max_tokens

    def search(self, length: int = 1, **changes: Any) -> SearchConfig:
        """Give the settings for prompts of `length` tokens, padding counted, with some of them changed.

        Raises:
            ConfigError: such a prompt leaves no room within `max_length`, or a changed setting is not valid.
        """
        lengths: dict[str, int] = {}
        if self.max_length is not None and "max_tokens" not in changes:
            if length >= self.max_length:
                raise ConfigError(
                    f"a prompt of {length} tokens leaves no room within the model's max_length={self.max_length}; "
                    "shorten it, or set max_tokens."
                )
            lengths["max_tokens"] = self.max_length - length
        most = changes.get("max_tokens", lengths.get("max_tokens", self.config.max_tokens))
        least = self.config.min_tokens if self.min_length is None else max(self.min_length - length, 0)
        lengths["min_tokens"] = min(least, most)
        return replace(self.config, **{**lengths, **changes})

    def transforms(self, config: SearchConfig, length: int = 1) -> list[Transform]:
        """List what changes the logits besides `config`, which is `search`'s for the same `length`.

        Raises:
            ConfigError: such a search needs a setting that isn't built here; one that it doesn't need is a warning.
        """
        from regard.generate.logits import forbid, forbid_runs, force, only_at

        for name, said in self.unbuilt:
            if _USED.get(name, lambda config: True)(config):
                raise ConfigError(f"{said} isn't built here; take it out to generate without it.")
            warnings.warn(f"{said} isn't built here; this search goes without it.", stacklevel=2)
        chosen: list[Transform] = []
        if self.forbidden:
            chosen.append(forbid_runs(self.forbidden))
        if self.forbidden_first:
            after = length + (length == 1 and self.first is not None)
            chosen.append(only_at(after, forbid(self.forbidden_first)))
        if self.first is not None:
            chosen.append(only_at(1, force([self.first])))
        if self.last:
            chosen.append(only_at(length + config.max_tokens - 1, force(self.last)))
        return chosen


@dataclass(frozen=True)
class TaskSettings:
    """Hold how a published model does one task ("summarization", "translation_en_to_de").

    Attributes:
        prefix: what stands before each text.
        published: how it then writes.
    """

    prefix: str
    published: Published


def search_config(folder: Path, config: ModelConfig) -> Published:
    """Read how the model of a folder is meant to write.

    What no file says is as the files' writers mean it, with one exception: without a greatest length it is
    `SearchConfig`'s, not 20 tokens.

    Raises:
        CheckpointError: a file is damaged.
        ConfigError: a setting is out of range.
    """
    path, said, model = _files(folder)
    plain = folder / "config.json"
    if said.get("top_k", _TOP_K) is None and path != plain:
        said["top_k"] = 0
    said = {key: value for key, value in said.items() if value is not None}

    tasks = model.get("task_specific_params")
    tasks = tasks if isinstance(tasks, dict) else {}

    def task(name: str) -> TaskSettings | None:
        own = tasks.get(name)
        if not isinstance(own, dict):
            return None
        prefix = own.get("prefix") or ""
        try:
            if not isinstance(prefix, str):
                raise ConfigError(f"prefix={prefix!r} must be text.")
            settings = {**said, **{key: value for key, value in own.items() if value is not None}}
            own_published = _published(settings, model, config)
            return TaskSettings(prefix, replace(own_published, unbuilt=_unbuilt(settings, plain, config)))
        except RegardError as error:
            raise ConfigError(f"{plain}: task_specific_params.{name}: {error}") from error

    try:
        return replace(
            _published(said, model, config),
            unbuilt=_unbuilt(said, path, config),
            tasks=tuple(tasks),
            task=task,
        )
    except RegardError as error:
        raise ConfigError(f"{path}: {error}") from error


def generation_settings(folder: Path) -> Settings:
    """Give what a generation_config.json says of how the model of a folder writes, for the model saved elsewhere.

    It is the folder's own, with the special tokens of config.json where it names none; of an older folder without
    one, what its config.json says in its place.

    Raises:
        CheckpointError: a file is damaged.
        ConfigError: a file holds no object.
    """
    path, said, model = _files(folder)
    roles = {name: model[name] for name in _ROLES if model.get(name) is not None}
    if path.name == "generation_config.json":
        return {**said, **{name: token for name, token in roles.items() if said.get(name) is None}}
    known = {*_READ.split(), *_NEUTRAL}
    # A file of its own means something else by null.
    found = {name: value for name, value in said.items() if name in known and value is not None}
    if said.get("force_bos_token_to_be_generated") and "bos_token_id" in found:
        found.setdefault("forced_bos_token_id", found["bos_token_id"])
    return found


def _files(folder: Path) -> tuple[Path, Settings, Settings]:
    """Read the settings of generation, with the path of their file, and config.json."""
    from regard.checkpoints.families import FAMILIES
    from regard.checkpoints.files import read_json

    path, plain = folder / "generation_config.json", folder / "config.json"
    model = read_json(plain) if plain.exists() else {}
    model = model if isinstance(model, dict) else {}
    if path.exists():
        said = read_json(path)
    else:
        family = FAMILIES.get(str(model.get("model_type")))
        path, said = plain, {**(family.generation if family else {}), **model}
    if not isinstance(said, dict):
        raise ConfigError(f"{path} must hold an object with the settings.")
    return path, said, model


def _unbuilt(said: Mapping[str, Any], path: Path, config: ModelConfig) -> tuple[tuple[str, str], ...]:
    """List the settings that aren't built here, each with how the file says it."""
    found = [
        (name, f"{path}: {name}={said[name]!r}")
        for name, neutral in _NEUTRAL.items()
        if name in said
        and said[name] not in neutral
        and not (name in _OF_ENCODERS and config.kind == "decoder")
    ]
    if said.get("do_sample", False) and said.get("num_beams", 1) != 1:
        found.append(("do_sample", f"{path}: do_sample with num_beams={said['num_beams']}"))
    return tuple(found)


def _published(said: Mapping[str, Any], model: Mapping[str, Any], config: ModelConfig) -> Published:
    """Read settings that hold no null; `model` is config.json, which may name several end tokens."""

    def ids(name: str, usual: int | None) -> tuple[int, ...]:
        found = said.get(name, model.get(name))
        found = _ids(name, usual if found is None else found)
        # Some files name an id that the vocabulary hasn't, -1 for instance, and mean none.
        return tuple(token for token in found if 0 <= token < config.vocab_size)

    eos = ids("eos_token_id", config.eos_id)
    pad = ids("pad_token_id", config.pad_id) or eos or (0,)
    start = ids("decoder_start_token_id", config.start) if config.kind == "encoder-decoder" else ()
    first = _ids("forced_bos_token_id", said.get("forced_bos_token_id"))
    if not first and said.get("force_bos_token_to_be_generated"):
        first = ids("bos_token_id", config.bos_id)
    runs = [_ids("bad_words_ids", run) for run in _list("bad_words_ids", said.get("bad_words_ids", []))]
    # A run that is nothing but an end token would leave texts without an end.
    runs = [run for run in runs if len(run) != 1 or run[0] not in eos]
    runs += [(token,) for token in _ids("suppress_tokens", said.get("suppress_tokens"))]
    new, old = said.get("max_new_tokens"), said.get("max_length", _MAX_LENGTH)
    least, shortest = said.get("min_new_tokens"), said.get("min_length", 0)
    if type(old) is not int or type(shortest) is not int:
        raise ConfigError(f"max_length={old!r} and min_length={shortest!r} must be whole numbers.")
    return Published(
        config=_search(said, {"max_tokens": new, "min_tokens": least}),
        max_length=None if new is not None or old == _MAX_LENGTH else old,
        min_length=None if least is not None or shortest <= 0 else shortest,
        eos=eos,
        pad_id=pad[0],
        start_id=start[0] if start else None,
        first=first[0] if first else None,
        last=_ids("forced_eos_token_id", said.get("forced_eos_token_id")),
        forbidden=tuple(runs),
        forbidden_first=_ids("begin_suppress_tokens", said.get("begin_suppress_tokens")),
    )


def _search(said: Mapping[str, Any], lengths: Mapping[str, int | None]) -> SearchConfig:
    early: EarlyStopping = said.get("early_stopping", False)
    if isinstance(early, (int, float)):
        early = bool(early)  # some files have 1 for true
    chosen: dict[str, Any] = {
        "num_beams": said.get("num_beams", 1),
        "num_return": said.get("num_return_sequences", 1),
        "length_penalty": said.get("length_penalty", 1.0),
        "early_stopping": early,
        "repetition_penalty": said.get("repetition_penalty", 1.0),
        "no_repeat_ngram": said.get("no_repeat_ngram_size", 0),
        "renormalise": said.get("renormalize_logits", False),
        "beam_groups": said.get("num_beam_groups", 1),
        "diversity_penalty": said.get("diversity_penalty", 0.0),
        **{name: value for name, value in lengths.items() if value is not None},
    }
    if said.get("do_sample", False) and chosen["num_beams"] == 1:
        chosen |= {
            "temperature": said.get("temperature", 1.0),
            "top_k": said.get("top_k", _TOP_K),
            "top_p": said.get("top_p", 1.0),
            "min_p": said.get("min_p", 0.0),
            "typical_p": said.get("typical_p", 1.0),
            "epsilon_cutoff": said.get("epsilon_cutoff", 0.0),
            "eta_cutoff": said.get("eta_cutoff", 0.0),
        }
        if chosen["temperature"] == 0:
            chosen |= NO_LIMIT
    return SearchConfig(**chosen)


def _list(name: str, value: object) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"{name}={value!r} must be a list.")
    return value


def _ids(name: str, value: object) -> tuple[int, ...]:
    """Read one id, several, or none."""
    found = () if value is None else tuple(value) if isinstance(value, list) else (value,)
    if not all(type(token) is int for token in found):
        raise ConfigError(f"{name}={value!r} must be an id or a list of ids.")
    return found
