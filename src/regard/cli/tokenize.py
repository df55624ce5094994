"""`regard tokenize`: train a tokenizer, or show how one splits a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from regard.cli.show import Output
from regard.errors import ConfigError


def command(
    data: list[str] | None = None,
    /,
    *,
    kind: Literal["char", "byte", "bpe", "wordpiece", "unigram"] = "bpe",
    vocab_size: int = 8000,
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
        Characters, bytes, or pieces learned by byte-pair encoding, WordPiece or a unigram model.
    vocab_size
        How many tokens; char and byte have their own number.
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
        if data or out or not text:
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
    if (out / "tokenizer.json").exists():
        raise ConfigError(f"{out} holds a tokenizer already; name another --out.")
    from regard.data.sources import open_source

    fields = columns or ["text"]
    source = open_source(list(data), fields=fields, columns=columns, encoding=encoding)
    words = Tokenizer.train(
        (str(row.values[name]) for row in source for name in fields), kind=kind, lowercase=lowercase,
        **({} if kind in ("char", "byte") else {"vocab_size": vocab_size}),
    )  # fmt: skip
    words.save(out)
    output.line(f"{out}: {words.vocab_size} tokens ({kind})")
    output.result({"tokenizer": out, "kind": kind, "vocab_size": words.vocab_size})
