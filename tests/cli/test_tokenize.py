"""`regard tokenize`: train one, and look at one."""

from __future__ import annotations

import json

import pytest
from tests.tiny_data import write_all

from regard.cli import main
from regard.data.tokenizers import Tokenizer


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_all(tmp_path))
    return tmp_path


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "wordpiece", "unigram"])
def test_every_kind_is_trained_and_shown(here, capsys, kind):
    assert main(["tokenize", "pairs.en", "pairs.fr", "--kind", kind, "--out", "words", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    words = Tokenizer.load(here / "words")
    assert said == {"tokenizer": "words", "kind": kind, "vocab_size": words.vocab_size}
    assert main(["tokenize", "--tokenizer", "words", "--text", "the dog", "--text", "un chat", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)["texts"]
    assert first["ids"] == words.encode("the dog")
    assert words.decode(second["ids"]) == "un chat"
    assert len(first["pieces"]) == len(first["ids"])
    assert main(["tokenize", "--tokenizer", "words", "--text", "the dog"]) == 0
    assert f"({first['ids'][0]})" in capsys.readouterr().out


def test_columns_size_and_case(here, capsys):
    (here / "rows.jsonl").write_text(
        "".join(json.dumps({"a": f"ABC {i}", "b": "xyz", "c": "QQQ"}) + "\n" for i in range(9))
    )
    words = [
        "tokenize",
        "rows.jsonl",
        "--columns",
        "a",
        "b",
        "--lowercase",
        "--vocab-size",
        "5000",
        "--out",
        "words",
    ]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "not 5000" in shown.err
    assert "words: " in shown.out
    trained = Tokenizer.load(here / "words")
    assert trained.decode(trained.encode("ABC")) == "abc"
    assert not any("q" in (trained.id_to_token(i) or "") for i in range(261, trained.vocab_size))
    assert main(words) == 2
    assert "words holds a tokenizer already" in capsys.readouterr().err
