"""A text as its model read it: tokens with their names and places, and the words that they make."""

from __future__ import annotations

from dataclasses import dataclass

from regard.errors import ConfigError, suggest

__all__ = ["Side", "Token", "Word"]


@dataclass(frozen=True)
class Token:
    """Name one token of a text.

    Attributes:
        text: as the text has it; a special one by its name.
        start, end: its characters in the text, [start, end); an empty span for what the tokenizer adds.
        special: whether it is one that stands around a text.
    """

    text: str
    start: int
    end: int
    special: bool = False


@dataclass(frozen=True)
class Word:
    """Name the tokens [start, end) that make a word; a special token is a word of its own."""

    text: str
    start: int
    end: int
    special: bool = False


@dataclass(frozen=True)
class Side:
    """Hold a text as its model read it.

    Attributes:
        name: "text", or "source" and "target" of an encoder-decoder.
        text: the text.
        ids: its tokens' ids.
        tokens: their names.
        words: runs of tokens, which cover all of them.
    """

    name: str
    text: str
    ids: tuple[int, ...]
    tokens: tuple[Token, ...]
    words: tuple[Word, ...]

    def find(self, what: int | str) -> Word:
        """Find a token by its number (negative: from the end), or a word by its text; `it#2` is the second `it`.

        Raises:
            ConfigError: there is none, or there are several.
        """
        if isinstance(what, int):
            number = what + len(self.tokens) if what < 0 else what
            if not 0 <= number < len(self.tokens):
                raise ConfigError(
                    f"the {self.name} has tokens 0 to {len(self.tokens) - 1}; there is no {what}."
                )
            token = self.tokens[number]
            return Word(token.text, number, number + 1, token.special)
        name, mark, place = what.rpartition("#")
        numbered = bool(mark) and place.isdecimal() and int(place) > 0 and bool(name)
        for key in ([name] if numbered else []) + [what]:
            found = self._named(key)
            if key == name and numbered and found:
                if int(place) > len(found):
                    raise ConfigError(f"the {self.name} has {name!r} {len(found)} times; there is no {what}.")
                return found[int(place) - 1]
            if len(found) > 1:
                raise ConfigError(
                    f"the {self.name} has {what!r} {len(found)} times; say which, as in {what}#1, or give a number."
                )
            if found:
                return found[0]
        hint = suggest(what, [word.text for word in self.words])
        raise ConfigError(f"the {self.name} has no word {what!r}. {hint}".strip())

    def _named(self, text: str) -> list[Word]:
        words = [word for word in self.words if word.text == text]
        if words:
            return words
        tokens = [(i, token) for i, token in enumerate(self.tokens) if token.text == text]
        if tokens:
            return [Word(token.text, i, i + 1, token.special) for i, token in tokens]
        return [word for word in self.words if word.text.casefold() == text.casefold()]
