"""What may be asked about looks: the bodies and queries of their routes, with every limit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from regard.look.draw.picture import View
from regard.look.reading import Hide
from regard.serve.fields import Asked, Count, Head, Language, Layer, Name, Short, Text, Tokens
from regard.serve.looks_export import Export, Format

__all__ = [
    "OfColumn", "OfFile", "OfHead", "OfLook", "OfRow", "OfWeight", "OfWindow", "OfWord", "ToChange", "ToFollow",
    "ToLook",
]  # fmt: skip

Identity = Annotated[str, Field(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")]
Place = Annotated[int, Field(ge=0, le=2**31)]
Cell = Annotated[int, Field(ge=1, le=2**24)]
HeadName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-z]+(\.[a-z0-9_]+){0,3}$")]


class Texts(Asked):
    """What a model reads, and what it writes."""

    text: Text
    target: Text | None = None
    pair: Text | None = None
    source_language: Language | None = None
    target_language: Language | None = None


class ToLook(Texts):
    """A look to take: at a text, or at a file of data."""

    model: Name
    text: Text = ""
    file: Name | None = None
    max_tokens: Tokens | None = None


class OfLook(Asked):
    """A kept look."""

    id: Identity


class OfHead(OfLook):
    """A head of a kept look, by the places of its layer and of itself."""

    layer: Layer
    head: Head


class OfRow(OfHead):
    """A row of a head."""

    row: Place


class OfColumn(OfHead):
    """A column of a head."""

    column: Place


class OfWeight(OfRow):
    """One weight of a head."""

    column: Place


class OfWindow(OfHead):
    """A window of a head's matrix, in tokens, of square cells."""

    row0: Place
    row1: Place
    column0: Place
    column1: Place
    cell: Cell = 1
    kind: Literal["mean", "max"] = "mean"
    sampled: bool = False


class OfWord(OfLook):
    """A word that is looked at."""

    word: Annotated[Short, Field(min_length=1)]
    side: Literal["text", "source", "target"] | None = None
    top: Count = 20


class OfFile(OfLook):
    """A look as a file."""

    format: Format
    layer: Layer | None = None
    head: Head | None = None
    view: View | None = None
    row: Place | None = None
    column: Place | None = None
    words: bool = False
    hide_special: bool = False
    hide_first: bool = False
    renormalise: bool = False
    dark: bool = False

    def export(self) -> Export:
        """Say what is drawn, as the exports take it."""
        both: tuple[tuple[Hide, bool], ...] = (("special", self.hide_special), ("first", self.hide_first))
        hide = tuple(name for name, hidden in both if hidden)
        return Export(
            self.format, self.layer, self.head, self.view, self.row, self.column, self.words, hide,
            self.renormalise, self.dark,
        )  # fmt: skip


class ToChange(Texts):
    """Heads to switch off."""

    model: Name
    heads: Annotated[list[HeadName], Field(min_length=1, max_length=4096)]
    how: Literal["zero", "mean"] = "zero"
    max_tokens: Tokens | None = None


class ToFollow(Texts):
    """A run whose checkpoints look at a text."""

    name: Name
