"""The sources: every format opens with the right fields, and every broken one is said in one sentence."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data import formats, tables
from regard.data.hub import parse
from regard.data.sources import label_names, open_source
from regard.errors import ConfigError, DataError, DependencyError, RegardError

PAIRS = ("source", "target")
TEXT = ("text",)
LABELLED = ("text", "label")
TAGGED = ("words", "tags")


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def values(paths: Sequence[str] | str, fields: Sequence[str], **settings: Any) -> list[dict[str, object]]:
    return [row.values for row in open_source(paths, fields=fields, **settings)]


def fails(paths: Sequence[str] | str, fields: Sequence[str], **settings: Any) -> str:
    """Give the one line of the error that reading ends in."""
    with pytest.raises(RegardError) as caught:
        list(open_source(paths, fields=fields, **settings))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------- formats


def test_parallel_files(tmp_path: Path) -> None:
    one = write(tmp_path, "a.en", "one \n\ntwo\n")
    two = write(tmp_path, "a.fr", "un\r\n\r\ndeux")
    source = open_source([one, two], fields=PAIRS)
    rows = list(source)
    assert [r.values for r in rows] == [
        {"source": "one", "target": "un"},
        {"source": "two", "target": "deux"},
    ]
    assert [(r.path, r.line, r.more) for r in rows] == [(one, 1, False), (one, 3, False)]
    assert list(source) == rows  # again


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", [".tsv", ".txt", ""])
def test_tabs(tmp_path: Path, suffix: str, end: str) -> None:
    content = end.join(['a "quote\tb', "c\td\textra", ""])
    path = write(tmp_path, "a" + suffix, content.replace("\textra", ""))
    assert values(path, PAIRS) == [{"source": 'a "quote', "target": "b"}, {"source": "c", "target": "d"}]


@pytest.mark.parametrize(
    ("header", "columns", "text"),
    [
        ("sentence\tlabel", None, "x y"),
        ("Label\tText", None, "1"),
        ("review\tstars", ["review", "stars"], "x y"),
        ("review\tstars", ["stars", "review"], "1"),
        ("sentence\tlabel", ["2", "1"], "1"),
        (None, ["2", "1"], "1"),
        (None, None, "x y"),
    ],
)
def test_headers(tmp_path: Path, header: str | None, columns: list[str] | None, text: str) -> None:
    rows = "x y\t1\nx y\t1\n"
    path = write(tmp_path, "a.tsv", f"{header}\n{rows}" if header else rows)
    found = values(path, LABELLED, columns=columns)
    assert [v["text"] for v in found] == [text, text]


def test_csv_quotes(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'label,text\nx,"a, ""b""\nnext line"\ny,c\n')
    assert values(path, LABELLED) == [
        {"label": "x", "text": 'a, "b"\nnext line'},
        {"label": "y", "text": "c"},
    ]
    assert [r.line for r in open_source(path, fields=LABELLED)] == [2, 4]


def test_csv_with_a_long_document(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text\n" + "x" * 200_000 + "\n")
    assert len(str(values(path, TEXT)[0]["text"])) == 200_000


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    path = write(
        tmp_path, name, '{"label": 1, "text": "x\\ny"}\n\n{"text": "z\u2028", "label": "b", "more": {}}\n'
    )
    assert values(path, LABELLED) == [{"text": "x\ny", "label": "1"}, {"text": "z", "label": "b"}]


@pytest.mark.parametrize("indent", [None, 2])
def test_json_array(tmp_path: Path, indent: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [
        {"source": f's{k} [é"]}}{{,', "target": "t" * k + "🙂", "n": [1.5, None, True]} for k in range(1, 40)
    ]
    path = write(tmp_path, "a.json", json.dumps(records, indent=indent, ensure_ascii=False))
    expected = [{"source": r["source"], "target": r["target"]} for r in records]
    for chunk in (1, 7, 100, 1 << 16):
        monkeypatch.setattr(tables, "JSON_CHUNK", chunk)
        assert values(path, PAIRS) == expected
    assert values(write(tmp_path, "b", json.dumps(records)), PAIRS) == expected


def test_records_within_records(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"id": 1, "translation": {"en": "a", "de": "b"}}\n')
    found = values(path, PAIRS, columns=["translation.en", "translation.de"])
    assert found == [{"source": "a", "target": "b"}]
    assert "translation.en" in fails(path, PAIRS)


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "a.parquet"
    content = {
        "tokens": [["a", "b"], ["c"]] * 1500,
        "ner_tags": [[0, 1], [2]] * 1500,
        "id": list(range(3000)),
    }
    pq.write_table(pa.table(content), file, row_group_size=100)
    found = values(str(file), TAGGED)
    assert len(found) == 3000
    assert found[1] == {"words": ["c"], "tags": ["2"]}
    deep = tmp_path / "deep.parquet"
    pq.write_table(pa.table({"translation": [{"en": "a", "de": "b"}]}), deep)
    assert values(str(deep), PAIRS, columns=["translation.en", "translation.de"]) == [
        {"source": "a", "target": "b"}
    ]
    assert "no column 'nothing'" in fails(str(deep), PAIRS, columns=["nothing", "translation.de"])
    assert "not a Parquet file" in fails(write(tmp_path, "b.parquet", "PAR1 no more"), TEXT)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyError, match="pip install pyarrow"):
        values(write(tmp_path, "b.parquet", "PAR1 no more"), TEXT)


@pytest.mark.parametrize("name", ["a.conll", "a.tsv", "a.txt", "a"])
@pytest.mark.parametrize("gap", ["\n", "\t\n", "\n\n"])
def test_conll(tmp_path: Path, name: str, gap: str) -> None:
    content = f"-DOCSTART-\tO\n{gap}EU\tB-ORG\nrejects\tO\n{gap}#\tO\nPeter\tB-PER\n"
    rows = list(open_source(write(tmp_path, name, content), fields=TAGGED))
    assert [r.values for r in rows] == [
        {"words": ["EU", "rejects"], "tags": ["B-ORG", "O"]},
        {"words": ["#", "Peter"], "tags": ["O", "B-PER"]},
    ]


def test_conll_with_spaces_and_more_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "a", "# id = 1\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nGerman JJ B-NP B-MISC\n")
    assert values(path, TAGGED)[0] == {"words": ["EU", "rejects"], "tags": ["B-ORG", "O"]}
    with_comment = open_source([path], fields=TAGGED)
    assert label_names(with_comment, "tags") == ["B-MISC", "B-ORG", "O"]


def test_words_and_tags_in_parallel(tmp_path: Path) -> None:
    write(tmp_path, "seq.in", "add it now\nplay\n")
    write(tmp_path, "seq.out", "O B-x O\nO\n")
    write(tmp_path, "label", "Add\nPlay\n")
    expected = [
        {"words": ["add", "it", "now"], "tags": ["O", "B-x", "O"]},
        {"words": ["play"], "tags": ["O"]},
    ]
    assert values([str(tmp_path / "seq.in"), str(tmp_path / "seq.out")], TAGGED) == expected
    assert values(str(tmp_path), TAGGED) == expected
    classes = [{"text": "add it now", "label": "Add"}, {"text": "play", "label": "Play"}]
    assert values([str(tmp_path / "seq.in"), str(tmp_path / "label")], LABELLED) == classes
    assert values(str(tmp_path), LABELLED) == classes


def test_labels_before_the_text(tmp_path: Path) -> None:
    plain = write(tmp_path, "a.all", "0 How far ?\nDESC:x Who\n")
    assert values(plain, LABELLED) == [
        {"text": "How far ?", "label": "0"},
        {"text": "Who", "label": "DESC:x"},
    ]
    marked = write(tmp_path, "b.txt", "__label__good fine film\n__label__bad no\n")
    assert values([plain, marked], LABELLED)[2:] == [
        {"text": "fine film", "label": "good"},
        {"text": "no", "label": "bad"},
    ]


def test_commands_and_bars(tmp_path: Path) -> None:
    scan = write(tmp_path, "a.txt", "IN: jump twice OUT: I_JUMP I_JUMP\nIN: walk OUT: I_WALK\n")
    assert values(scan, PAIRS)[0] == {"source": "jump twice", "target": "I_JUMP I_JUMP"}
    assert len(values([scan, scan], PAIRS)) == 4  # not taken for parallel files
    bars = write(tmp_path, "b.txt", "a b ||| c d\n")
    assert values(bars, PAIRS) == [{"source": "a b", "target": "c d"}]


def test_a_folder_for_each_label(tmp_path: Path) -> None:
    write(tmp_path, "pos/1.txt", "good\nfilm\n")
    write(tmp_path, "neg/2.txt", "bad\n")
    source = open_source(str(tmp_path), fields=LABELLED)
    assert [r.values for r in source] == [
        {"text": "bad", "label": "neg"},
        {"text": "good\nfilm", "label": "pos"},
    ]
    assert label_names(source) == ["neg", "pos"]


def test_a_folder_of_anything(tmp_path: Path) -> None:
    write(tmp_path, "b.txt", "second\n")
    write(tmp_path, "a/first.md", "first\n")
    write(tmp_path, "c.jsonl", '{"text": "third"}\n')
    write(tmp_path, ".hidden", "no")
    write(tmp_path, "picture.png", b"\x89PNG\0\0")
    assert [v["text"] for v in values(str(tmp_path), TEXT)] == ["first\n", "second\n", "third"]
    write(tmp_path, "scan/x.txt", "IN: a OUT: b\n")
    assert values(str(tmp_path / "scan"), PAIRS) == [{"source": "a", "target": "b"}]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (None, ["a\n\nb\nc\n"]),
        ("file", ["a\n\nb\nc\n"]),
        ("line", ["a", "b", "c"]),
        ("blank", ["a", "b\nc"]),
    ],
)
def test_documents(tmp_path: Path, mode: str | None, expected: list[str]) -> None:
    path = write(tmp_path, "a.txt", "a\r\n\r\nb\r\nc\r\n")
    assert [v["text"] for v in values(path, TEXT, documents=mode)] == expected
    assert len(values([path, path], TEXT, documents=mode)) == 2 * len(expected)


@pytest.mark.parametrize("mode", ["file", "blank"])
def test_a_long_document_goes_on_in_the_next_row(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "DOCUMENT_PIECE", 20)
    text = "\n".join(f"line number {k}" for k in range(12)) + "\n"
    path = write(tmp_path, "a.txt", text + "\nlast\n" if mode == "blank" else text)
    rows = list(open_source(path, fields=TEXT, documents=mode))
    assert len(rows) > 3
    first = rows[: [r.more for r in rows].index(False) + 1]
    assert "".join(str(r.values["text"]) for r in first).rstrip("\n") == text.rstrip("\n")
    assert all(str(r.values["text"]).endswith("\n") for r in first[:-1])
    assert len(rows) - len(first) == (mode == "blank")


@given(lines=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\0"))))
def test_only_newlines_end_lines(lines: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """What other programs take for line ends (U+2028, U+0085, form feed, a lone CR) stays within a line."""
    path = write(
        tmp_path_factory.mktemp("lines"), "a.txt", "".join(line + "\n" for line in ["start", *lines])
    )
    found = [text for _, text in formats.lines(formats.File(path, path))]
    assert found == ["start", *(line.removesuffix("\r") for line in lines)]


def test_gzip(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv.gz", gzip.compress(b"a\tb\nc\td\n"))
    assert len(values(path, PAIRS)) == 2
    plain = write(tmp_path, "b.txt.gz", gzip.compress(b"text\n"))
    assert values(plain, TEXT) == [{"text": "text\n"}]
    broken = write(tmp_path, "c.txt.gz", gzip.compress(os.urandom(99999))[:60000])
    assert "can't be read" in fails(broken, TEXT)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b'{"text": "a"}\n{"text": 3}\n'))
    )
    source = open_source("-", fields=TEXT, skip_bad_rows=True)
    for _ in range(2):
        assert [r.values for r in source] == [{"text": "a"}]
    assert source.faults == ["standard input:2: the text is 3, not a string"]
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(b"")))
    assert fails("-", TEXT) == "standard input: the file is empty"


class FakeClass:
    def int2str(self, value: int) -> str:
        return "ab"[value]


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    class Data(list):  # type: ignore[type-arg]
        features: ClassVar = {"label": FakeClass(), "ner_tags": types.SimpleNamespace(feature=FakeClass())}

    def load(name: str, config: str | None, split: str) -> Data:
        asked.append((name, config, split))
        if name == "x/missing":
            raise FileNotFoundError("no such data set\nlong story")
        return Data([{"text": "t", "label": 1, "tokens": ["w"], "ner_tags": [0]}, {"text": "u", "label": -1}])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load))
    source = open_source("hub:owner/name", fields=LABELLED, skip_bad_rows=True)
    assert [r.values for r in source] == [{"text": "t", "label": "b"}]
    assert source.faults == ["hub:owner/name:2: 'label' is missing"]
    assert values("hub:name:test", TEXT, split="test") == [{"text": "t"}, {"text": "u"}]
    assert values("hub:o/n/c:valid", TAGGED, skip_bad_rows=True) == [{"words": ["w"], "tags": ["a"]}]
    assert asked == [("owner/name", None, "train"), ("name", None, "test"), ("o/n", "c", "valid")]
    assert fails("hub:x/missing", TEXT) == "hub:x/missing: can't be loaded: no such data set"
    assert "give one of them" in fails("hub:name:test", TEXT, split="train")
    assert "write a data set of the hub as" in fails("hub:../x", TEXT)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DependencyError, match=r"pip install 'regard\[hub\]'"):
        values("hub:owner/name", TEXT)
    assert parse("hub:glue", None) == ("glue", None, "train")


# ---------------------------------------------------------------------------------------- what is broken


@pytest.mark.parametrize(
    ("name", "content", "fields", "line", "reason"),
    [
        ("a.tsv", "a\tb\nc\n", PAIRS, 2, "1 columns where the table has 2"),
        ("a.tsv", "a\tb\nc\td\te\n", PAIRS, 2, "3 columns where the table has 2"),
        ("a.tsv", "a\tb\nc\t \n", PAIRS, 2, "the target is empty"),
        ("a.csv", 'a,b\n"c"d,e\n', PAIRS, 2, "not valid CSV"),
        ("a.csv", 'a,b\nc,"d\n', PAIRS, 2, "not valid CSV"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b"\n', TEXT, 2, "not valid JSON"),
        ("a.jsonl", '{"text": "a"}\n["b"]\n', TEXT, 2, "a list where an object with text is needed"),
        ("a.jsonl", '{"text": "a"}\n{"txt": "b"}\n', TEXT, 2, "'text' is missing"),
        ("a.jsonl", '{"text": "a"}\n{"text": null}\n', TEXT, 2, "'text' is missing"),
        ("a.jsonl", '{"text": "a"}\n{"text": {"b": 1}}\n', TEXT, 2, "not a string"),
        ("a.jsonl", '{"text": "a"}\n{"text": "b\\u0000"}\n', TEXT, 2, "NUL"),
        (
            "a.jsonl",
            '{"words": ["a"], "tags": ["O"]}\n{"words": ["a"], "tags": []}',
            TAGGED,
            2,
            "there are no tags",
        ),
        (
            "a.jsonl",
            '{"words": ["a"], "tags": ["O"]}\n{"words": "a b", "tags": [1]}',
            TAGGED,
            2,
            "2 words but 1 tags",
        ),
        (
            "a.jsonl",
            '{"words": ["a"], "tags": ["O"]}\n{"words": [[]], "tags": [1]}',
            TAGGED,
            2,
            "not a list of strings",
        ),
        ("a.json", '[{"text": "a"},\n 3]', TEXT, 2, "a int where an object"),
        ("a.conll", "a\tO\n\nb\tO\nc\n", TAGGED, 4, "a line needs a token and, last, its tag; here is 'c'"),
        ("a.conll", "a\tO\n\nb\t \n", TAGGED, 3, "a line needs a token"),
        ("a.txt", "x some text\ny\n", LABELLED, 2, "the text is empty"),
        ("a.txt", "__label__x a\n__label__x __label__y a\n", LABELLED, 2, "more than one label"),
        ("a.txt", "a\n\0\n", TEXT, 2, "NUL byte"),
        ("a.tsv", "a\tb\n\0c\td\n", PAIRS, 2, "NUL byte"),
        ("a.csv", "a,b\n\0c,d\n", PAIRS, 2, "NUL byte"),
        ("a.txt", b"ab\ncaf\xe9\n", TEXT, 2, "byte 0xe9 at offset 6 is not UTF-8; .*--encoding latin-1"),
        ("a.tsv", b"\xef\xbb\xbfa\tb\nc\t\xe9\n", PAIRS, 2, "byte 0xe9 at offset 9 is not UTF-8"),
        ("a.csv", b"a,b\nc,\xe9\n", PAIRS, 2, "byte 0xe9 at offset 6 is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n\xff\n', TEXT, 2, "byte 0xff at offset 14 is not UTF-8"),
    ],
)
def test_a_broken_row(
    tmp_path: Path, name: str, content: str | bytes, fields: Sequence[str], line: int, reason: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match=reason) as caught:
        list(open_source(path, fields=fields))
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert str(caught.value).endswith("; use --skip-bad-rows to leave such rows out")
    assert "\n" not in str(caught.value)
    source = open_source(path, fields=fields, skip_bad_rows=True)
    assert len(list(source)) == 1
    assert source.skipped == 1
    assert source.faults[0].startswith(f"{path}:{line}: ")


def test_reading_goes_on_after_broken_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", b'a,b\nc\n"d"x,e\n\xff,g\nh,i\n' + b"j\n" * 9)
    source = open_source(path, fields=PAIRS, skip_bad_rows=True)
    assert [r.values["source"] for r in source] == ["a", "h"]
    assert source.skipped == 12 and len(source.faults) == 5
    assert len(list(source)) == 2 and source.skipped == 12  # counted anew in each pass


def test_unequal_parallel_files(tmp_path: Path) -> None:
    one = write(tmp_path, "a.en", "1\n2\n3\n")
    two = write(tmp_path, "a.de", "1\n2\n")
    for pair in ([one, two], [two, one]):
        message = fails(pair, PAIRS, skip_bad_rows=True)
        assert f"{one} has 3 lines" in message and f"{two} has 2 lines" in message


def test_a_hole_in_parallel_files(tmp_path: Path) -> None:
    one = write(tmp_path, "a.en", "1\n2\n3\n")
    two = write(tmp_path, "a.de", "1\n \n3\n")
    assert fails([one, two], PAIRS).startswith(f"{one}:2: the target is empty")
    three = write(tmp_path, "a.fr", b"1\n2\n\xe9\n")
    assert fails([one, three], PAIRS).startswith(f"{three}:3: byte 0xe9")
    words = write(tmp_path, "seq.in", "a b\nc d\n")
    tags = write(tmp_path, "seq.out", "O O\nO\n")
    assert "2 words but 1 tags" in fails([words, tags], TAGGED)


def test_byte_order_marks_and_carriage_returns(tmp_path: Path) -> None:
    for content in (b"\xef\xbb\xbfsource,target\r\na,b\r\n", "\ufeffsource,target\r\na,b\r\n".encode()):
        assert values(write(tmp_path, "a.csv", content), PAIRS) == [{"source": "a", "target": "b"}]
    array = write(tmp_path, "a.json", b'\xef\xbb\xbf[{"text": "a"}]')
    assert values(array, TEXT) == [{"text": "a"}]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "cp1252", "shift_jis"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    text = "source\ttarget\n日本\t語\n" if encoding == "shift_jis" else "source\ttarget\ncafé\tthé\n"
    path = write(tmp_path, "a.tsv", text.encode(encoding))
    source, target = text.split("\n")[1].split("\t")
    assert values(path, PAIRS, encoding=encoding) == [{"source": source, "target": target}]
    assert "--encoding" in fails(path, PAIRS)


def test_wrong_encodings_of_whole_files(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "text\n".encode("utf-16"))
    assert "the file is UTF-16" in fails(path, TEXT)
    assert "is not UTF-16" in fails(write(tmp_path, "b.txt", b"\xff\xfea"), TEXT, encoding="utf-16")
    array = write(tmp_path, "c.json", b'[{"text": "\xe9"}]')
    assert "not UTF-8" in fails(array, TEXT)
    assert "unknown encoding 'latin-l'. did you mean 'latin-1'?" in fails(path, TEXT, encoding="latin-l")
    assert "not an encoding of text" in fails(path, TEXT, encoding="hex")


def test_nothing_there(tmp_path: Path) -> None:
    path = write(tmp_path, "train.en", "a\n")
    assert "did you mean 'train.en'?" in fails(str(tmp_path / "trian.en"), TEXT)
    assert "no folder" in fails(str(tmp_path / "nowhere" / "a"), TEXT)
    assert fails(write(tmp_path, "empty", ""), TEXT).endswith("empty: the file is empty")
    (tmp_path / "folder").mkdir()
    assert "there are no files in this folder" in fails(str(tmp_path / "folder"), TEXT)
    assert "there are no rows to use" in fails(write(tmp_path, "blank", "\n \n"), TEXT)
    assert "no data was given" in fails([], TEXT)
    bad = write(tmp_path, "bad.jsonl", "{\n")
    assert "there are no rows to use: 1 were left out, first" in fails(bad, TEXT, skip_bad_rows=True)
    assert "none of the 3 files in this folder holds words and tags" in fails(
        write_many(tmp_path / "many", ["x.txt", "y.txt", "z.txt"]), TAGGED
    )
    assert path


def write_many(folder: Path, names: Sequence[str]) -> str:
    for name in names:
        write(folder, name, "some plain text here\nand no more\n")
    return str(folder)


def test_fields_that_are_not_there(tmp_path: Path) -> None:
    prose = write(tmp_path, "a.txt", "".join(f"word{k} and so on\n" for k in range(30)))
    assert "give two parallel files" in fails(prose, PAIRS)
    assert "give two parallel files" in fails([prose] * 3, PAIRS)
    assert "do not begin with a label" in fails(prose, LABELLED)
    assert "are not 'token tag'" in fails(prose, TAGGED)
    table = write(tmp_path, "a.tsv", "label\tother\nx\ty\n")
    assert "no column is named 'text'; there are: label, other" in fails(table, LABELLED)
    assert "no column 'texxt'" in fails(table, LABELLED, columns=["texxt", "label"])
    assert "did you mean 'other'?" in fails(table, LABELLED, columns=["othr", "label"])
    assert "the table has 2 columns" in fails(table, LABELLED, columns=["1", "3"])
    assert "the table has 2 columns" in fails(table, LABELLED, columns=["0", "1"])
    narrow = write(tmp_path, "b.csv", "a\nb\n")
    assert "the table has 1 columns" in fails(narrow, PAIRS)


@pytest.mark.parametrize(
    "content",
    [
        '{"a": [',
        "[1",
        '[{"text": "a"}',
        '[{"text": "a"},',
        '[{"text": "a"} {"text": "b"}]',
        '[{"text": }]',
        "7",
        "[" * 99999,
    ],
)
def test_broken_arrays(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, "a.json", content)
    assert fails(path, TEXT).startswith(path)


def test_settings_without_effect_are_refused(tmp_path: Path) -> None:
    plain = write(tmp_path, "a.txt", "text\n")
    table = write(tmp_path, "a.tsv", "a\tb\n")
    assert "--columns names columns of tables" in fails(plain, TEXT, columns=["x"])
    assert "--split chooses" in fails(plain, TEXT, split="train")
    assert "--documents is for plain text" in fails(
        write(tmp_path, "a.jsonl", '{"text": "a"}'), TEXT, documents="line"
    )
    assert "--documents has no effect" in fails(table, PAIRS, documents="line")
    assert "did you mean 'line'?" in fails(plain, TEXT, documents="lines")
    with pytest.raises(ConfigError, match="names 1 columns"):
        open_source(table, fields=PAIRS, columns=["a"])


def test_a_single_label(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "x one\nx two\n")
    with pytest.raises(DataError, match="every label is 'x'; there must be at least two"):
        label_names(open_source(path, fields=LABELLED))
    more = write(tmp_path, "b.txt", "y three\n")
    assert label_names(open_source([path, more], fields=LABELLED)) == ["x", "y"]


# ------------------------------------------------------------------------------------------- published data


@pytest.mark.parametrize(
    ("paths", "fields", "settings", "number", "first"),
    [
        (
            ["multi30k/val.en", "multi30k/val.de"],
            PAIRS,
            {},
            1014,
            "A group of men are loading cotton onto a truck",
        ),
        (
            ["small_parallel_enja/dev.en", "small_parallel_enja/dev.ja"],
            PAIRS,
            {},
            500,
            "show your own business .",
        ),
        (
            ["scan/simple_split/tasks_train_simple.txt"],
            PAIRS,
            {},
            16728,
            "jump opposite right twice and turn",
        ),
        (["scan/length_split/tasks_train_length.txt"], PAIRS, {}, 16990, "walk"),
        (["scan/add_prim_split/tasks_train_addprim_jump.txt"], PAIRS, {}, 14670, "jump"),
        (["cogs/dev.tsv"], PAIRS, {}, 3000, "Liam hoped that a box was burned by a girl ."),
        (["sst2-glue/dev.tsv"], LABELLED, {}, 872, "it 's a charming and often affecting journey ."),
        (["trec/TREC.train.all"], LABELLED, {"encoding": "latin-1"}, 5452, "How did serfdom develop"),
        (
            ["sentence-classification-cv/rt-polarity.all"],
            LABELLED,
            {"encoding": "latin-1"},
            10662,
            "simplistic ,",
        ),
        (
            ["sentence-classification-cv/subj.all"],
            LABELLED,
            {"encoding": "latin-1"},
            10000,
            "smart and alert",
        ),
        (["snips/dev"], LABELLED, {}, 700, "i d like to have this track"),
        (["snips/dev"], TAGGED, {}, 700, "i"),
        (["snips/dev/seq.in", "snips/dev/seq.out"], TAGGED, {}, 700, "i"),
        (["wnut17/emerging.dev.conll"], TAGGED, {}, 1009, "Stabilized"),
        (["wnut17/wnut17train.conll"], TAGGED, {}, 3394, "@paulwalk"),
        (["wikiann/en/dev", "wikiann/de/dev"], TAGGED, {}, 20000, "en:Sioux"),
        (["tinyshakespeare/input.txt"], TEXT, {}, 1, "First Citizen:\nBefore"),
        (["tinyshakespeare/input.txt"], TEXT, {"documents": "blank"}, 7222, "First Citizen:\nBefore"),
        (["multi30k/val.fr"], TEXT, {"documents": "line"}, 1014, "Un groupe d'hommes"),
    ],
)
def test_published_data(
    shared: Path, paths: list[str], fields: Sequence[str], settings: dict[str, Any], number: int, first: str
) -> None:
    files = [shared / "data" / path for path in paths]
    if not all(f.exists() for f in files):
        pytest.skip(f"{paths[0]} is not there")
    found = values([str(f) for f in files], fields, **settings)
    assert len(found) == number
    value = found[0][fields[0]]
    assert str(value[0] if isinstance(value, list) else value).startswith(first)
    assert all(set(v) == set(fields) for v in found)
    if fields == LABELLED:
        assert 2 <= len({str(v["label"]) for v in found}) <= 7
    if fields == TAGGED:
        tags = {tag for v in found for tag in v["tags"]}  # type: ignore[attr-defined]
        assert all(tag == "O" or tag[:2] in ("B-", "I-") for tag in tags)


@pytest.mark.parametrize("name", ["sentence-classification-cv/rt-polarity.all", "trec/TREC.train.all"])
def test_published_data_in_latin_1_says_so(shared: Path, name: str) -> None:
    message = fails(str(shared / "data" / name), LABELLED)
    assert "is not UTF-8" in message and "--encoding latin-1" in message
