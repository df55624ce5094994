"""Standard streams that are closed, full or in another encoding."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from regard.cli import main


def shell(repo: Path, command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command of sh; $R stands for the program."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    env |= {"PYTHONPATH": str(repo / "src"), "R": f"{sys.executable} -m regard", **environment}
    return subprocess.run(["sh", "-c", command], capture_output=True, env=env, check=False)


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_error(repo: Path, closed: str) -> None:
    done = shell(repo, f"$R --help {closed}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == (">&-" not in closed.replace("2>&-", ""))


def test_where_nobody_reads_bad_words_still_have_their_code(repo: Path) -> None:
    assert shell(repo, "$R trian >&- 2>&-").returncode == 2


def test_a_closed_standard_input_holds_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["train", "generate", "-", "--out", "nowhere"]) == 2
    sys.stdin.close()  # what stood in for it
    assert capsys.readouterr().err == "regard: standard input: the file is empty\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_full_standard_output_is_one_line_and_code_1(repo: Path, buffered: str) -> None:
    done = shell(repo, "$R --help >/dev/full", PYTHONUNBUFFERED=buffered)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "regard: standard output can't be written: No space left on device"
    ]


def test_an_error_elsewhere_keeps_its_own_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from regard import cli

    def fails(words: list[str], verbs: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli, "_dispatch", fails)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert main(["--help"]) == 1
    assert "OSError: [Errno 28]" in capsys.readouterr().err


def test_words_that_the_locale_could_not_read(repo: Path) -> None:
    program = "import os, sys; from regard.data.tokenizers import Tokenizer; " \
        "from regard.errors import DataError\n" \
        "try: Tokenizer.train(['a b'], kind='char').encode(sys.argv[1])\n" \
        "except DataError as error: print(error)"  # fmt: skip
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PROGRAM": program}
    done = shell(repo, f'{sys.executable} -c "$PROGRAM" caf\u00e9', **environment)
    assert b"a shell: LC_ALL=C.UTF-8" in done.stdout
