"""What a table of a published family is made of: rows of tensors and rows of settings, each with its inverse.

    config.json        Key, Several      ModelConfig
    tensors' names     Row, Transform    the module's parameters

One table loads and saves. A row names whole layers (".weight" and ".bias" follow) or single tensors; it counts where
the model has what it names, so one table serves a family's members with and without biases, norms or heads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regard.checkpoints.transforms import SAME, Transform
from regard.config import ModelConfig

__all__ = ["REQUIRED", "Bound", "Family", "Head", "Key", "Row", "Several", "Swap", "bind"]

Settings = dict[str, Any]
REQUIRED: Any = object()
"""The default of a key without which a configuration says too little."""
_LEAVES = (".weight", ".bias")


@dataclass(frozen=True)
class Row:
    """Tie tensors of a published checkpoint to ours.

    `{i}` stands for every layer. A name that ends neither in .weight nor in .bias means both, on either side. The row
    is for the models whose fields are as `when` says.
    """

    theirs: str | tuple[str, ...]
    ours: str | tuple[str, ...]
    transform: Transform = SAME
    when: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Swap:
    """Exchange a value for its name on the other side; what isn't listed can't be built."""

    pairs: tuple[tuple[Any, Any], ...]

    def to_ours(self, value: Any) -> Any:
        """Give our value of theirs; KeyError where there is none."""
        return _look_up(self.pairs, value)

    def to_theirs(self, value: Any) -> Any:
        """Give the first of their values of ours."""
        return _look_up([(ours, theirs) for theirs, ours in self.pairs], value)


def _look_up(pairs: Iterable[tuple[Any, Any]], value: Any) -> Any:
    for left, right in pairs:
        if left == value and type(left) is type(value):
            return right
    raise KeyError(value)


@dataclass(frozen=True)
class Key:
    """Tie a key of config.json to a field of ModelConfig.

    Attributes:
        theirs: the key; its other names follow.
        ours: the field; None: we build the `default` only, anything else is refused.
        default: what a configuration without the key means.
        swap: how values are exchanged, where they aren't the same.
    """

    theirs: str
    ours: str | None
    default: Any = REQUIRED
    swap: Swap | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Several:
    """Tie several keys to several fields at once.

    Attributes:
        keys: theirs.
        read: their whole configuration to our fields; it raises ConfigError where it asks for what we don't build.
        write: ours to their keys.
        null: the keys whose null means something; another's is as good as none.
        matters: whether a misspelt one of them would be missed.
    """

    keys: tuple[str, ...]
    read: Callable[[Settings], Settings]
    write: Callable[[ModelConfig], Settings]
    null: tuple[str, ...] = ()
    matters: bool = True


@dataclass(frozen=True)
class Head:
    """Say what one of a family's classes adds to the bare model: fields of ModelConfig, and rows.

    `prefix` stands before the bare model's names where it isn't the family's.
    """

    fields: Settings
    rows: tuple[Row, ...] = ()
    prefix: str | None = None


@dataclass(frozen=True)
class Family:
    """Hold all that differs between a published family's files and ours.

    Attributes:
        name: its model_type.
        fixed: fields of ModelConfig that all members share.
        keys: of config.json.
        heads: the names of its classes, the bare model's and the usual one's first, and what each is.
        rows: of the bare model, without its prefix.
        prefix: what stands before the bare model's names in a class with a head ("bert.").
        optional: fields that hold where a tensor (without prefix) is there.
        renamed: (pattern, replacement) of names in older files.
        unused: patterns of tensors that say nothing (tables of positions), or belong to a head that isn't built here;
            those of the classes in `heads` are known by their rows.
        generation: keys of generation that a config.json of the years before generation_config.json leaves out.
    """

    name: str
    fixed: Settings
    keys: tuple[Key | Several, ...]
    heads: Mapping[str, Head]
    rows: tuple[Row, ...]
    prefix: str = ""
    optional: Mapping[str, str] = field(default_factory=dict)
    renamed: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    generation: Mapping[str, Any] = field(default_factory=dict)

    def current_name(self, name: str) -> str:
        """Give the name that a tensor of an older file has today."""
        for pattern, replacement in self.renamed:
            name = re.sub(pattern, replacement, name)
        return name

    def is_unused(self, name: str) -> bool:
        """Tell whether a tensor needs no place, for one because it belongs to another of the family's classes."""
        of_heads = {
            their for head in self.heads.values() for row in head.rows for their in _tuple(row.theirs)
        }
        stem = next((name.removesuffix(leaf) for leaf in _LEAVES if name.endswith(leaf)), name)
        return bool({name, stem} & of_heads) or any(re.search(pattern, name) for pattern in self.unused)


@dataclass(frozen=True)
class Bound:
    """Hold one row of one model: whole names of tensors on both sides."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    transform: Transform


def bind(
    rows: Sequence[Row], names: Iterable[str], layers: Mapping[str, int], prefix: str = ""
) -> list[Bound]:
    """Write a table out for one model.

    Args:
        rows: the table.
        names: the model's own tensors; rows of what it doesn't have are left out.
        layers: how many layers each of our stacks has ("stack.blocks": 12).
        prefix: before each of theirs.
    """
    known = set(names)
    bound = []
    for row in rows:
        theirs, ours = _tuple(row.theirs), _tuple(row.ours)
        count = next((n for stack, n in layers.items() if ours[0].startswith(stack)), 1)
        leaves = ("",) if ours[0].endswith(_LEAVES) else _LEAVES
        for i in range(count if "{i}" in ours[0] else 1):
            for leaf in leaves:
                own = tuple(name.replace("{i}", str(i)) + leaf for name in ours)
                if all(name in known for name in own):
                    other = tuple(prefix + name.replace("{i}", str(i)) + leaf for name in theirs)
                    bound.append(Bound(other, own, row.transform))
    return bound


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names
