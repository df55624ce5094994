"""`regard tokenize`: train a tokenizer, or show how one splits a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output
from regard.errors import ConfigError, DataError

if TYPE_CHECKING:
    from regard.data.sources import Source
    from regard.data.tokenizers import Tokenizer


def command(
    data: list[str] | None = None,
    /,
    *,
    kind: Literal["char", "byte", "bpe", "wordpiece", "unigram"] | None = None,
    vocab_size: OptionalCount = None,
    lowercase: bool = False,
    columns: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    encoding: str = "utf-8",
    out: Path | None = None,
    tokenizer: Path | None = None,
    text: Annotated[list[str] | None, Parameter(negative=())] = None,
    json: bool = False,
) -> None:
    """Train a tokenizer on files and write it to a folder; or, with --tokenizer and --text, show how one splits a text.

    Parameters
    ----------
    data
        Files or folders of text.
    kind
        Characters, bytes, or pieces learned by byte-pair encoding (bpe, the usual one), WordPiece or a unigram model.
    vocab_size
        How many tokens at most; unset: 8000. char and byte have their own number.
    lowercase
        Lower-case all text.
    columns
        The columns that hold text, for tables.
    encoding
        Of text files.
    out
        The folder to write.
    tokenizer
        A folder that holds a tokenizer, for instance a run's.
    text
        What to split.
    json
        Print one JSON object on standard output.
    """
    from regard.data.tokenizers import Tokenizer

    output = Output(json)
    if tokenizer is not None:
        if data or out or kind or vocab_size or lowercase or columns or not text:
            raise ConfigError("--tokenizer goes with --text alone; to train one, give data and --out.")
        words = Tokenizer.load(tokenizer)
        rows = [{"text": t, "ids": (ids := words.encode(t)), "pieces": words.tokens(ids)} for t in text]
        for row in rows:
            output.line(" ".join(f"{piece}({i})" for piece, i in zip(row["pieces"], row["ids"], strict=True)))
        output.result({"texts": rows})
        return
    if not data or out is None or text:
        raise ConfigError(
            "give data and --out to train a tokenizer, or --tokenizer and --text to look at one."
        )
    kind = kind or "bpe"
    if vocab_size is not None and kind in ("char", "byte"):
        raise ConfigError(f"--vocab-size has no effect on a {kind} tokenizer; leave it out.")
    words = _train(list(data), kind, vocab_size, lowercase, columns, encoding, out)
    if vocab_size is not None and words.vocab_size < vocab_size:
        output.note(f"the data gives a vocabulary of {words.vocab_size} tokens, not {vocab_size}.")
    output.line(f"{out}: {words.vocab_size:,} tokens ({kind})")
    output.result({"tokenizer": out, "kind": kind, "vocab_size": words.vocab_size})


class _Texts:
    """Be the texts of some columns, read anew each time."""

    def __init__(self, source: Source, fields: Sequence[str]) -> None:
        self._source, self._fields = source, fields

    def __iter__(self) -> Iterator[str]:
        return (str(row.values[name]) for row in self._source for name in self._fields)


def _train(
    data: list[str],
    kind: str,
    vocab_size: int | None,
    lowercase: bool,
    columns: list[str] | None,
    encoding: str,
    out: Path,
) -> Tokenizer:
    from regard.data.sources import open_source
    from regard.data.tokenizers import Tokenizer

    fields = columns or ["text"]
    try:
        if (out / "tokenizer.json").exists():
            raise ConfigError(f"{out} holds a tokenizer already; name another --out.")
        source = open_source(data, fields=fields, columns=columns, encoding=encoding)
        size = {"vocab_size": vocab_size} if vocab_size is not None else {}
        words = Tokenizer.train(_Texts(source, fields), kind=kind, lowercase=lowercase, **size)
        words.save(out)
    except OSError as error:
        raise DataError(f"{error.filename or out} can't be written: {error.strerror or error}.") from error
    return words
