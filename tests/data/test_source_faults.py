"""Files that lie about their form: open quotes, long first lines, two columns of one name, half characters, pipes."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from regard.data.sources import open_source
from regard.errors import ConfigError, DataError

LABELLED = ("text", "label")


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(path: Path, fields: tuple[str, ...] = LABELLED, **settings: object) -> list[dict[str, object]]:
    return [row.values for row in open_source(path, fields=fields, **settings)]  # type: ignore[arg-type]


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path: Path) -> None:
    lines = [f"text {i},pos" for i in range(900)]
    lines[5] = '"' + lines[5]
    path = write(tmp_path, "a.csv", "text,label\n" + "\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"a\.csv:7: a quote opens here .* the next 894 lines"):
        rows(path)
    source = open_source(path, fields=LABELLED, skip_bad_rows=True)
    found = list(source)
    assert source.skipped == 1
    assert [row.values["text"] for row in found] == [f"text {i}" for i in range(900) if i != 5]
    assert [row.line for row in found] == [i + 2 for i in range(900) if i != 5]


def test_a_quote_that_ends_in_another_row_costs_one_row_too(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,label\n"one,pos\ntwo,neg\nthree,"neg"\nfour,pos\n')
    source = open_source(path, fields=LABELLED, skip_bad_rows=True)
    assert [row.values["text"] for row in source] == ["two", "three", "four"]
    # Here the quote is closed and the record is whole, but of too few columns.
    path = write(tmp_path, "b.csv", 'text,label\n"one,pos\ntwo,neg\nthree"\nfour,pos\n')
    source = open_source(path, fields=LABELLED, skip_bad_rows=True)
    assert "four" in [row.values["text"] for row in source]
    assert "two" in [row.values["text"] for row in source]


def test_a_field_of_several_lines_is_still_one(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", 'text,label\n"one\ntwo, ""three""\n",pos\nfour,neg\n')
    assert [row["text"] for row in rows(path)] == ['one\ntwo, "three"', "four"]


def test_long_json_lines_without_a_suffix_are_json(tmp_path: Path) -> None:
    text = "a dog " * 20_000
    path = write(tmp_path, "long", (json.dumps({"text": text}) + "\n") * 3)
    assert [row["text"] for row in rows(path, ("text",))] == [text] * 3
    # Text that only begins with a brace stays text.
    assert rows(write(tmp_path, "code", "{ a: " + text), ("text",)) == [{"text": "{ a: " + text}]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "text,text,label\n" + "a,b,c\n" * 3)
    with pytest.raises(DataError, match="columns 1 and 2 have the same name, 'text'"):
        rows(path)
    with pytest.raises(DataError, match="columns 1 and 2"):
        rows(path, columns=["text", "label"])
    assert rows(path, columns=["2", "3"])[0] == {"text": "b", "label": "c"}


def test_two_columns_of_one_name_in_parquet(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([pa.array(["x"])] * 3, names=["source", "target", "target"]), path)
    for columns in (None, ["source", "target"]):
        with pytest.raises(DataError, match="columns 2 and 3 have the same name, 'target'"):
            rows(path, ("source", "target"), columns=columns)


def test_parquet_whose_text_is_no_utf_8(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    ends = pa.array([0, 2, 4], pa.int32()).buffers()[1]
    text = pa.Array.from_buffers(pa.string(), 2, [None, ends, pa.py_buffer(b"\xff\xfeab")])
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="bytes that are not UTF-8"):
        rows(tmp_path / "a.parquet", ("text",))


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        (("text",), {"text": "a \ud83d"}),
        (LABELLED, {"text": "a", "label": "b\udcff"}),
        (("words", "tags"), {"words": ["a"], "tags": ["\ud83d"]}),
        (
            ("messages",),
            {"messages": [{"role": "user", "content": "\ud83d"}, {"role": "assistant", "content": "a"}]},
        ),
    ],
)
def test_half_a_character_in_json(tmp_path: Path, fields: tuple[str, ...], bad: dict[str, object]) -> None:
    good = json.loads(json.dumps(bad).replace("\\ud83d", "x").replace("\\udcff", "x"))
    path = write(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in (good, bad, good)))
    with pytest.raises(DataError, match=r"a\.jsonl:2: half a character"):
        rows(path, fields)
    assert len(rows(path, fields, skip_bad_rows=True)) == 2


@pytest.mark.parametrize("encoding", ["undefined", "idna", "punycode", "unicode_escape", "hex"])
def test_encodings_that_are_not_of_text(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path, "a.txt", "a dog\n")
    with pytest.raises(ConfigError, match="is not an encoding of text"):
        rows(path, ("text",), encoding=encoding)


def test_a_folder_in_another_encoding(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("a dog\n", encoding="utf-16")
    assert rows(tmp_path, ("text",), encoding="utf-16") == [{"text": "a dog"}] * 2
    with pytest.raises(DataError, match="none of the 2 files"):
        rows(tmp_path, ("text",))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_read_once_and_used_often(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("a dog\na cat\n"))
    writer.start()
    source = open_source(pipe, fields=("text",))
    writer.join()
    assert [[row.values["text"] for row in source] for _ in range(2)] == [["a dog\na cat\n"]] * 2


def test_what_is_no_file() -> None:
    with pytest.raises(DataError, match="this is no ordinary file"):
        open_source("/dev/null", fields=("text",))
