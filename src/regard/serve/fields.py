"""The types of what is asked: each with its limits, so that nothing that can't be reaches any work."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = [
    "Asked", "Beams", "Count", "Head", "Ids", "Language", "Layer", "Name", "Penalty", "Seed", "Share", "Short",
    "Temperature", "Text", "Texts", "Tokens", "TopK",
]  # fmt: skip


class Asked(BaseModel):
    """Be the body of a request: what isn't known is refused, and so are NaN and infinities."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def _well_formed(text: str) -> str:
    """Refuse what is no text: half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a character (a lone surrogate)") from None
    return text


def _clean(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL")
    return _well_formed(text)


Name = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_clean)]
Short = Annotated[str, Field(max_length=2_000), AfterValidator(_well_formed)]
Text = Annotated[str, Field(max_length=4_000_000), AfterValidator(_well_formed)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=10_000)]
Language = Annotated[str, Field(min_length=1, max_length=32), AfterValidator(_clean)]
Layer = Annotated[int, Field(ge=0, le=10_000)]
Head = Annotated[int, Field(ge=0, le=10_000)]
_TOKENS = 100_000  # of a text that is written
Ids = Annotated[list[Annotated[int, Field(ge=0, le=10_000_000)]], Field(max_length=_TOKENS)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Tokens = Annotated[int, Field(ge=1, le=_TOKENS)]
Beams = Annotated[int, Field(ge=1, le=64)]
TopK = Annotated[int, Field(ge=1, le=10_000_000)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Temperature = Annotated[float, Field(ge=0.0, le=100.0)]
Penalty = Annotated[float, Field(ge=-100.0, le=100.0)]
Seed = Annotated[int, Field(ge=0, le=2**62)]
