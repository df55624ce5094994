"""Numbers on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter


def whole_number(hint: Any, tokens: Sequence[Any]) -> int:
    """Read a flag's whole number; 5.5 is none, and must not become one in silence.

    Raises:
        ValueError: it is not a whole number.
    """
    text = str(tokens[0].value).replace("_", "")
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{tokens[0].value} is not a whole number") from None


Count = Annotated[int, Parameter(converter=whole_number)]
OptionalCount = Annotated[int | None, Parameter(converter=whole_number)]
