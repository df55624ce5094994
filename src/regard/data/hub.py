"""Read a data set of the Hugging Face hub as rows, through the optional `datasets` library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from regard.data.formats import File, Item
from regard.data.tables import records
from regard.errors import ConfigError, DataError, DependencyError

__all__ = ["parse", "rows"]

FORM = re.compile(
    r"hub:(?P<name>\w[\w.-]*(?:/\w[\w.-]*)?)(?:/(?P<config>\w[\w.-]*))?(?::(?P<split>[^:\s]+))?"
)


def parse(spec: str, split: str | None) -> tuple[str, str | None, str]:
    """Take `hub:owner/name[/config][:split]` apart into name, config and split (`train` if not named)."""
    match = FORM.fullmatch(spec)
    if match is None:
        raise DataError(
            f"{spec}: write a data set of the hub as hub:owner/name, with :split after it if need be"
        )
    written = match["split"]
    if written and split and written != split:
        raise ConfigError(f"{spec} names the split {written!r}, and --split says {split!r}; give one of them")
    return match["name"], match["config"], written or split or "train"


def rows(
    spec: str, fields: Sequence[str], columns: Sequence[str] | None, split: str | None
) -> Iterator[Item]:
    """Give the rows of a data set; class numbers come as the names of their classes.

    Raises DependencyError without the `datasets` library, DataError where the set can't be had.
    """
    name, config, part = parse(spec, split)
    try:
        import datasets
    except ImportError as error:
        raise DependencyError(
            f"{spec}: reading from the hub needs datasets: pip install 'regard[hub]'"
        ) from error
    try:
        data = datasets.load_dataset(name, config, split=part)
    except Exception as error:  # the library raises whatever its layers raise
        first = str(error).strip().splitlines()
        raise DataError(f"{spec}: can't be loaded: {first[0] if first else type(error).__name__}") from error
    named = _with_names(data.features)
    numbered = enumerate(({k: named(k, v) for k, v in record.items()} for record in data), 1)
    yield from records(numbered, File(spec, spec), fields, columns)


def _with_names(features: Any) -> Any:
    """Make the function that turns the class numbers of a column into names."""

    def convert(column: str, value: Any) -> Any:
        feature: Any = features.get(column) if features else None
        inner: Any = getattr(feature, "feature", None)
        if hasattr(feature, "int2str") and isinstance(value, int):
            return None if value < 0 else feature.int2str(value)
        if hasattr(inner, "int2str") and isinstance(value, list):
            return [inner.int2str(v) for v in value]
        return value

    return convert
