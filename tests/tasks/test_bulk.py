"""Whole files: every line in its place, on from any kill, nothing done for what is bad, nothing held in memory."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.errors import ConfigError, DataError
from regard.tasks.bulk import BulkResult, file_digest, read_lines, run_bulk

CHUNK = 4


def upper(texts: Sequence[str]) -> list[str]:
    return [f"<{text.upper()}>" for text in texts]


def too_long(texts: Sequence[str]) -> Mapping[int, str]:
    return {i: f"has {len(text)} letters." for i, text in enumerate(texts) if len(text) > 20}


def job(folder: Path, text: str | bytes | None = None, **settings: object) -> BulkResult:
    source = folder / "in.txt"
    if text is not None:
        source.write_bytes(text if isinstance(text, bytes) else text.encode())
    defaults: dict[str, object] = {"settings": {"beams": 4}, "chunk": CHUNK, "check": too_long}
    return run_bulk(source, folder / "out.txt", upper, **{**defaults, **settings})  # type: ignore[arg-type]


def out(folder: Path) -> str:
    return (folder / "out.txt").read_bytes().decode()


@pytest.mark.parametrize("lines", [1, 3, 4, 5, 8, 9])
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_line_in_is_a_line_out(tmp_path: Path, lines: int, ending: str) -> None:
    texts = [f"line {i}" for i in range(lines)]
    said: list[tuple[int, int]] = []
    found = job(
        tmp_path, "\r\n".join(texts) + ending, progress=lambda done, total: said.append((done, total))
    )
    assert found == BulkResult(lines, 0, ())
    assert out(tmp_path) == "".join(f"{line}\n" for line in upper(texts))
    assert said[0] == (0, lines)
    assert said[-1] == (lines, lines)
    assert sorted(os.listdir(tmp_path)) == ["in.txt", "out.txt"]


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), max_size=8), min_size=1
    )
)
def test_only_a_line_feed_ends_a_line(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("bulk")
    found = job(folder, "".join(f"{text}\n" for text in texts), check=lambda lines: {})
    assert found.lines == len(texts)
    written = out(folder).split("\n")
    assert written.pop() == ""
    plain = [text.removesuffix("\r") for text in texts]
    plain[0] = plain[0].removeprefix("\ufeff")
    assert written == [line.replace("\r\n", " ").replace("\r", " ") for line in upper(plain)]


def test_odd_characters_and_empty_lines_keep_their_place(tmp_path: Path) -> None:
    job(tmp_path, "a\rb\n\n\u2028\t\n \n\x85\x0c\nend")
    assert out(tmp_path).split("\n") == ["<A B>", "<>", "<\u2028\t>", "< >", "<\x85\x0c>", "<END>", ""]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig", "latin-1", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    job(tmp_path, "été\nça\n".encode(encoding), encoding=encoding)
    assert out(tmp_path) == "<ÉTÉ>\n<ÇA>\n"


def test_a_bom_is_no_text(tmp_path: Path) -> None:
    job(tmp_path, codecs.BOM_UTF8 + b"a\nb\n")
    assert out(tmp_path) == "<A>\n<B>\n"


@pytest.mark.parametrize(
    ("text", "settings", "error", "said"),
    [
        (b"", {}, DataError, "in.txt is empty"),
        (b"a\n\xff\xfeb\n", {}, DataError, "byte 2 is no utf-8 text"),
        (b"x" * (1 << 20) + b"\xc3\nb", {}, DataError, f"byte {1 << 20} is no utf-8 text"),
        (b"abc\xc3", {}, DataError, "byte 3 is no utf-8"),
        (b"a\nb\0c\n", {}, DataError, "in.txt:2: a NUL character"),
        (b"abc", {"encoding": "utf-16"}, DataError, "no utf-16 text"),
        (b"abc", {"encoding": "utf-88"}, ConfigError, "unknown encoding 'utf-88'. did you mean 'utf-8'"),
        (b"abc", {"encoding": "rot13"}, ConfigError, "rot13"),
        (b"abc", {"encoding": "base64"}, ConfigError, "base64"),
        (b"ok\n" * 5 + b"z" * 30, {}, DataError, r"in.txt:6: has 30 letters. Or leave an empty line"),
    ],
    ids=str,
)
def test_bad_input_is_named_before_anything_is_done(
    tmp_path: Path, text: bytes, settings: dict[str, str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        job(tmp_path, text, **settings)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["in.txt"]


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*in\.txt"):
        job(tmp_path)
    (tmp_path / "in.txt").mkdir()
    with pytest.raises(DataError, match="no ordinary file"):
        job(tmp_path)
    (tmp_path / "in.txt").rmdir()
    os.mkfifo(tmp_path / "in.txt")
    with pytest.raises(DataError, match="no ordinary file"):
        job(tmp_path)
    (tmp_path / "in.txt").unlink()
    (tmp_path / "out.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        job(tmp_path, "a")
    assert out(tmp_path) == "mine"
    with pytest.raises(ConfigError, match="exists already"):
        run_bulk(tmp_path / "in.txt", tmp_path / "in.txt", upper, settings={})
    with pytest.raises(DataError, match="can't be written: No such file"):
        run_bulk(tmp_path / "in.txt", tmp_path / "none" / "out.txt", upper, settings={})
    with pytest.raises(DataError, match="can't be read"):
        file_digest(tmp_path / "nothing")
    assert file_digest(tmp_path / "out.txt") == hashlib.sha256(b"mine").hexdigest()


def test_bad_rows_may_be_left_empty(tmp_path: Path) -> None:
    lines = ["a", "z" * 21, "b", "c", "d", "z" * 30]
    calls: list[int] = []

    def work(texts: Sequence[str]) -> list[str]:
        calls.append(len(texts))
        return upper(texts)

    (tmp_path / "in.txt").write_text("\n".join(lines))
    found = run_bulk(
        tmp_path / "in.txt",
        tmp_path / "out.txt",
        work,
        check=too_long,
        settings={},
        chunk=CHUNK,
        skip_bad_rows=True,
    )
    assert found == BulkResult(6, 0, (2, 6))
    assert out(tmp_path) == "<A>\n\n<B>\n<C>\n<D>\n\n"
    assert calls == [3, 1]  # the good ones together


class Killed(BaseException):
    """Stop a job where a kill would."""


def stop_after(folder: Path, done: int, **settings: object) -> None:
    def progress(count: int, total: int) -> None:
        if count >= done:
            raise Killed

    with pytest.raises(Killed):
        job(folder, progress=progress, **settings)


def test_a_job_goes_on_from_every_length_of_its_unfinished_output(tmp_path: Path) -> None:
    texts = [f"é{i}" for i in range(2 * CHUNK + 2)]
    texts[5] = "z" * 40
    job(tmp_path, "\n".join(texts), skip_bad_rows=True)
    whole = (tmp_path / "out.txt").read_bytes()
    (tmp_path / "out.txt").unlink()
    stop_after(tmp_path, len(texts), skip_bad_rows=True)
    note = (tmp_path / "out.txt.part.json").read_bytes()
    for size in range(len(whole) + 1):
        (tmp_path / "out.txt.part").write_bytes(whole[:size])
        (tmp_path / "out.txt.part.json").write_bytes(note)
        found = job(tmp_path, skip_bad_rows=True)
        assert (tmp_path / "out.txt").read_bytes() == whole
        lines = whole[:size].count(b"\n")
        assert found.resumed == (len(texts) if lines == len(texts) else lines - lines % CHUNK)
        assert found.bad == (6,)
        (tmp_path / "out.txt").unlink()


@pytest.mark.parametrize(
    "change", [{"settings": {"beams": 5}}, {"settings": {}}, {"chunk": 3}, {"encoding": "latin-1"}, {"text": "o\n"}],
    ids=str,
)  # fmt: skip
def test_an_unfinished_output_of_another_job_is_left_alone(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / "in.txt").write_text("a\nb\nc\nd\ne\nf\n")
    stop_after(tmp_path, CHUNK)
    before = (tmp_path / "out.txt.part").read_bytes()
    with pytest.raises(
        ConfigError, match=r"out.txt.part was begun with another model, input or settings; remove it"
    ):
        job(tmp_path, **change)  # type: ignore[arg-type]
    assert (tmp_path / "out.txt.part").read_bytes() == before


def test_what_no_job_of_ours_left_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.txt.part").write_text("somebody's\n")
    with pytest.raises(ConfigError, match="was begun with another"):
        job(tmp_path, "a\n")
    (tmp_path / "out.txt.part.json").write_text("[1]")
    with pytest.raises(ConfigError, match="was begun with another"):
        job(tmp_path, "a\n")
    assert (tmp_path / "out.txt.part").read_text() == "somebody's\n"


def test_skipping_may_be_asked_for_later(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\nb\nc\nd\ne\n")
    stop_after(tmp_path, CHUNK)
    assert job(tmp_path, skip_bad_rows=True).resumed == CHUNK


def test_two_processes_never_write_one_output(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "in.txt").write_text("a\nb\nc\nd\ne\n")
    stop_after(tmp_path, CHUNK)
    with (tmp_path / "out.txt.part").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="is being written by another process"):
            job(tmp_path)
    assert job(tmp_path).resumed == CHUNK


def test_a_full_disk_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 6:
            raise OSError(28, "No space left on device")
        sync(handle)

    (tmp_path / "in.txt").write_text("".join(f"{i}\n" for i in range(40)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(Exception, match="No space left on device") as caught:
            job(tmp_path)
    assert "\n" not in str(caught.value)
    assert job(tmp_path).resumed > 0
    assert out(tmp_path) == "".join(f"<{i}>\n" for i in range(40))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a line of some thirty letters..\n" * 60_000)
    tracemalloc.start()
    try:
        run_bulk(tmp_path / "in.txt", tmp_path / "out.txt", lambda texts: texts, settings={}, chunk=4000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert file_digest(tmp_path / "out.txt") == file_digest(tmp_path / "in.txt")
    assert peak < 6_000_000  # as a list of strings the lines alone take more


def test_lines_are_those_that_were_counted(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\n\r\n b \nc")
    assert list(read_lines(path, "utf-8")) == ["a", "", " b ", "c"]


# Killed at a line of bulk.py, a random one of all that it runs: the child's trace counts them.
KILLED_AT_LINES = """
import os, random, signal, sys
from pathlib import Path
from regard.tasks import bulk
source, target = Path(sys.argv[1]), Path(sys.argv[2])

def run(last):
    seen = 0
    def trace(frame, event, arg):
        nonlocal seen
        if frame.f_code.co_filename != bulk.__file__:
            return None
        seen += event == "line"
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    bulk.run_bulk(source, target, lambda texts: [f"<{t.upper()}>" for t in texts], settings={}, chunk=3)
    sys.settrace(None)
    return seen

def child(last):
    pid = os.fork()
    if pid == 0:
        run(last)
        os._exit(0)
    return os.waitpid(pid, 0)[1]

total = run(-1)
whole = target.read_bytes()
draw = random.Random(7)
kills = 0
for _ in range(10):
    target.unlink()
    while not target.exists():
        status = child(draw.randrange(1, total))
        assert status in (0, signal.SIGKILL), status
        kills += status == signal.SIGKILL
    assert target.read_bytes() == whole
    Path(f"{target}.part.json").unlink(missing_ok=True)
assert {path.name for path in target.parent.iterdir()} == {"in.txt", "out.txt"}
print(kills)
"""


def test_killed_at_any_line_it_ends_with_the_same_bytes(tmp_path: Path, repo: Path) -> None:
    (tmp_path / "in.txt").write_text("".join(f"line {i}\n" for i in range(20)))
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_LINES, str(tmp_path / "in.txt"), str(tmp_path / "out.txt")],
        env={**os.environ, "PYTHONPATH": str(repo / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10
    assert (tmp_path / "out.txt").read_text() == "".join(f"<LINE {i}>\n" for i in range(20))


def test_the_note_says_what_the_output_belongs_to(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a\nb\nc\nd\ne\n")
    stop_after(tmp_path, CHUNK)
    note = json.loads((tmp_path / "out.txt.part.json").read_text())
    assert note["source"] == file_digest(tmp_path / "in.txt")
    assert (note["lines"], note["chunk"], note["beams"]) == (5, CHUNK, 4)
