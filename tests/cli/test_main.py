"""The command line's frame: which module a verb loads, what an error prints, and with which code it exits."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from cyclopts import Parameter

from regard import errors
from regard.cli import VERBS, Verb, main, parse

MODULE = "regard_test_verb"


def command(
    task: Literal["translate", "fill"],
    data: list[Path],
    /,
    *,
    beams: int = 4,
    valid: Path | None = None,
    shuffle: Annotated[bool, Parameter(negative="--no-shuffle")] = True,
    json: bool = False,
) -> int | None:
    """Train on your own files.

    Parameters
    ----------
    task
        What to learn.
    data
        The files to learn it from.
    beams
        How many hypotheses to keep.
    """
    CALLS.append(
        {"task": task, "data": data, "beams": beams, "valid": valid, "shuffle": shuffle, "json": json}
    )
    return None


CALLS: list[dict[str, Any]] = []


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, Verb]]]:
    """Make a verb table with one verb, `train`, whose `command` is the given function."""

    def install(function: Callable[..., Any] = command) -> dict[str, Verb]:
        module = types.ModuleType(MODULE)
        module.command = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, MODULE, module)
        return {"train": Verb(MODULE, "Train on your own files", "Train")}

    CALLS.clear()
    yield install
    CALLS.clear()


def failing(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        """Fail."""
        raise error

    return command


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_root_help_lists_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr()
    assert not shown.err
    for name, verb in VERBS.items():
        assert f"  {name} " in shown.out
        assert verb.help in shown.out
    assert max(len(line) for line in shown.out.splitlines()) <= 100


def test_the_verbs_have_modules_of_their_own_name() -> None:
    assert all(verb.module == f"regard.cli.{name}" for name, verb in VERBS.items())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import regard

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"regard {regard.__version__}\n"


def test_a_verb_gets_its_typed_arguments(verb: Any) -> None:
    assert main(["train", "translate", "a.en", "a.fr", "--beams", "8", "--json"], verbs=verb()) == 0
    assert [
        {
            "task": "translate",
            "data": [Path("a.en"), Path("a.fr")],
            "beams": 8,
            "valid": None,
            "shuffle": True,
            "json": True,
        }
    ] == CALLS


def test_a_lone_hyphen_is_a_value(verb: Any) -> None:
    assert main(["train", "fill", "-", "--valid", "-"], verbs=verb()) == 0
    assert CALLS[0]["data"] == [Path("-")]
    assert CALLS[0]["valid"] == Path("-")


def test_after_two_hyphens_everything_is_text(verb: Any) -> None:
    assert main(["train", "fill", "--no-shuffle", "--", "--debug", "-x"], verbs=verb()) == 0
    assert CALLS[0]["data"] == [Path("--debug"), Path("-x")]
    assert CALLS[0]["shuffle"] is False


def test_parse_runs_nothing(verb: Any) -> None:
    call = parse(["train", "fill", "a"], verb())
    assert not CALLS
    call()
    assert len(CALLS) == 1


def test_a_verb_chooses_its_exit_code(verb: Any) -> None:
    def command() -> int:
        """Fail politely."""
        return 3

    assert main(["train"], verbs=verb(command)) == 3


def test_verb_help_names_every_flag(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help"], verbs=verb()) == 0
    shown = capsys.readouterr().out
    for part in (
        "Usage: regard train",
        "TASK",
        "translate, fill",
        "--beams INT",
        "[default: 4]",
        "--no-shuffle",
    ):
        assert part in shown
    assert "How many hypotheses to keep." in shown
    assert main(["help", "train"], verbs=verb()) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "unknown verb 'trian'; did you mean 'train'?"),
        (["zzz"], "unknown verb 'zzz'; choose from train"),
        (["--halp"], "unknown flag '--halp'; did you mean '--help'?"),
        (["train"], "TASK requires an argument"),
        (["train", "fill", "a", "--beems", "3"], "unknown option: --beems. Did you mean --beams?"),
        (["train", "fil", "a"], 'Did you mean "fill"?'),
        (["train", "fill", "a", "--beams", "many"], "many"),
        (["train", "fill", "a", "-x words"], "If it is text, put -- before it."),
        (["\x1b[31mred"], "\\x1b[31mred"),
    ],
)
def test_bad_words_give_one_line_and_exit_2(
    words: list[str], said: str, verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words, verbs=verb()) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith("regard: ")
    assert shown.err.count("\n") == 1
    assert said in shown.err
    assert not CALLS


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.ConfigError("num_heads=7 does not divide width=512; try 8."), 2, "num_heads=7"),
        (errors.DataError("a.tsv:3: two columns\n  are needed"), 2, "a.tsv:3: two columns are needed"),
        (errors.DataError("file \x1b]0;owned\x07\u202e.txt"), 2, "file \\x1b]0;owned\\x07\\u202e.txt"),
        (errors.CheckpointError("pytorch_model.bin is a pickle"), 2, "is a pickle"),
        (errors.DependencyError("needs datasets"), 2, "needs datasets"),
        (errors.TrainingError("the loss is not finite"), 1, "the loss is not finite"),
        (ModuleNotFoundError("No module named 'datasets.x'", name="datasets.x"), 2, "pip install datasets"),
        (ModuleNotFoundError("No module named 'regard.gone'", name="regard.gone"), 1, "--debug"),
        (ValueError("inside"), 1, "ValueError: inside; use --debug to see the trace"),
        (AssertionError(), 1, "AssertionError; use --debug"),
    ],
)
def test_an_error_is_one_line_with_its_code(
    error: Exception, code: int, said: str, verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train"], verbs=verb(failing(error))) == code
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith("regard: ")
    assert shown.err.count("\n") == 1
    assert said in shown.err


@pytest.mark.parametrize("words", [["--debug", "train"], ["train", "--debug"]])
def test_debug_shows_the_trace_and_keeps_the_code(
    words: list[str], verb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words, verbs=verb(failing(errors.DataError("bad row")))) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("regard: bad row\n")


def test_interruption_exits_130(verb: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"], verbs=verb(failing(KeyboardInterrupt()))) == 130
    assert capsys.readouterr().err == "regard: interrupted\n"


def test_a_reader_that_leaves_is_no_error(repo: Path) -> None:
    program = (
        "import sys, types\n"
        "from regard.cli import Verb, main\n"
        "def command() -> None:\n"
        "    'Print.'\n"
        "    for _ in range(20_000): print('a line of text')\n"
        "sys.modules['talkative'] = module = types.ModuleType('talkative')\n"
        "module.command = command\n"
        "sys.exit(main(['talk'], verbs={'talk': Verb('talkative', '', '')}))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(repo / "src")},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait() == 141


def test_a_terminal_without_unicode_still_gets_its_lines(repo: Path) -> None:
    program = "from regard.cli import main; raise SystemExit(main(['é\\u202e']))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(repo / "src"), "PYTHONIOENCODING": "ascii:strict"},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"regard: unknown verb")
    assert b"Traceback" not in done.stderr
