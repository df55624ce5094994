"""Decode ids one at a time, for text that appears while it is generated."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regard.data.tokenizers import Tokenizer

__all__ = ["TextStream"]


class TextStream:
    """Decode ids one at a time; the parts joined equal the decoding of all ids together.

    A part is held back while it may still change: half a character, or a run of single bytes that has not
    ended.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Start at the beginning of a text; `Tokenizer.stream` is the usual way here."""
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        # Decoding starts again at `start`, a little before the first id not yet shown at `shown`, since
        # what a token looks like may depend on whether it is the first.
        self._start = 0
        self._shown = 0

    def add(self, index: int) -> str:
        """Take the next id and give the text that is certain by now; often that is an empty string."""
        tokenizer = self._tokenizer
        tokenizer._checked([index])
        if index in tokenizer._special_ids:
            return ""
        self._ids.append(index)
        # A broken byte spoils the whole run of byte pieces it stands in, so such a run is shown when it has
        # ended.
        if tokenizer._is_byte(tokenizer._backend.id_to_token(index)):
            return ""
        fresh = self._fresh()
        if not fresh or fresh.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self._start, self._shown = self._shown, len(self._ids)
        if self._start > 64:
            del self._ids[: self._start]
            self._start, self._shown = 0, self._shown - self._start
        return fresh

    def finish(self) -> str:
        """Give what was held back; the stream starts anew afterwards."""
        fresh = self._fresh()
        self._ids, self._start, self._shown = [], 0, 0
        return fresh

    def _fresh(self) -> str:
        decode = self._tokenizer.decode
        before = decode(self._ids[self._start : self._shown])
        return decode(self._ids[self._start :])[len(before) :]
