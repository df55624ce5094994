"""`regard convert`: a checkpoint in another layout or precision."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from regard.cli.show import Output, plain


def command(
    source: str,
    target: Path,
    /,
    *,
    family: str | None = None,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    revision: str | None = None,
    offline: bool | None = None,
    json: bool = False,
) -> None:
    """Write a model anew, load what was written, and say how far its logits are from the first ones.

    Parameters
    ----------
    source
        A model's folder, a file of weights, or a hub id (owner/name).
    target
        The new folder.
    family
        The published family to write, such as gpt2 or bart; unset: the one it came from, or one that has this model.
    precision
        Of the weights that are written.
    revision
        Of a hub id: a branch, a tag or a commit.
    offline
        Look for a hub id in the cache only.
    json
        Print one JSON object on standard output.
    """
    from regard.conversion import convert

    out = Output(json)
    found = convert(source, target, family=family, precision=precision, revision=revision, offline=offline)
    read, written = found.read or "regard", found.written or "regard"
    out.line(f"{found.folder}: {found.weights:,} weights, {read} to {written}, in {precision}")
    out.line(
        f"largest difference of a logit: {found.difference:.3g} (the largest logit is {found.scale:.3g})"
    )
    out.result(plain(found))
