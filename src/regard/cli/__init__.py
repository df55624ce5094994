"""The command line: one table of verbs, and the module of the one verb that was asked for.

`main` reads the first word, imports `regard.cli.<verb>` alone, and hands the rest to its function `command`
through cyclopts; the root help comes from the table and imports nothing. A verb module holds

    def command(run: Path, text: list[str], /, *, beams: int = 4, json: bool = False) -> None:
        '''Translate text with a trained run. ...'''

whose types and docstring become its flags and its help. It returns None, or an int to exit with.

Exit codes: 0 done; 1 the work failed; 2 the input was wrong; 130 interrupted; 141 the reader of our output
left.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from regard.errors import ConfigError, DependencyError, RegardError, suggest

if TYPE_CHECKING:
    from cyclopts import App

__all__ = ["VERBS", "Verb", "build", "main", "parse"]

FAILED, BAD_INPUT, INTERRUPTED, READER_LEFT = 1, 2, 130, 141
_HYPHEN = "\0-"
_STARTED = [0.0]  # when `main` was called last
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class Verb(NamedTuple):
    """Name the module that holds a verb's `command`, its one line of help, and its group on the help page."""

    module: str
    help: str
    group: str


VERBS: dict[str, Verb] = {
    "demo": Verb("regard.cli.demo", "Train in two minutes and see where `it` looks", "Start"),
    "serve": Verb(
        "regard.cli.serve", "Open the page: look, translate, generate, read, train and compare", "Start"
    ),
    "train": Verb(
        "regard.cli.train",
        "Train a model: translate, generate, fill, denoise, classify, tag or chat",
        "Train",
    ),
    "reproduce": Verb(
        "regard.cli.reproduce", "Train for a published result from nothing, and compare", "Train"
    ),
    "tokenize": Verb("regard.cli.tokenize", "Train a tokenizer, or show how one splits a text", "Train"),
    "translate": Verb("regard.cli.translate", "Translate texts, standard input or a whole file", "Run"),
    "summarize": Verb("regard.cli.summarize", "Summarise texts, standard input or a whole file", "Run"),
    "generate": Verb("regard.cli.generate", "Continue a text", "Run"),
    "chat": Verb("regard.cli.chat", "Talk with a model that was made for conversations", "Run"),
    "classify": Verb("regard.cli.classify", "Give the probability of each label of a text", "Run"),
    "tag": Verb("regard.cli.tag", "Find names in a text, or parts of speech, with their places", "Run"),
    "fill": Verb("regard.cli.fill", "Find what may stand in a text's masks", "Run"),
    "answer": Verb("regard.cli.answer", "Find the answer to a question in a passage", "Run"),
    "embed": Verb("regard.cli.embed", "Make a vector of each text, or search a file by them", "Run"),
    "score": Verb("regard.cli.score", "Say how likely a text is: log-probability and perplexity", "Run"),
    "look": Verb("regard.cli.look", "Show what a model attends to, in the terminal and as pictures", "Look"),
    "heads": Verb("regard.cli.heads", "Say what each head does, and what the model is without it", "Look"),
    "evaluate": Verb("regard.cli.evaluate", "Measure a trained run on data", "Run"),
    "info": Verb("regard.cli.info", "Say what is in a run or a published model", "Run"),
    "convert": Verb("regard.cli.convert", "Write a model in another layout or precision, and compare", "Run"),
    "compare": Verb(
        "regard.cli.compare", "Train variants under one budget, with several seeds each", "Compare"
    ),
    "lab": Verb("regard.cli.lab", "Measure what people are told about attention, claim by claim", "Compare"),
    "bench": Verb("regard.cli.bench", "Compare with other libraries on this machine", "Compare"),
}


def main(argv: Sequence[str] | None = None, *, verbs: Mapping[str, Verb] = VERBS) -> int:
    """Run the command line and return the exit code; nothing is raised for what a user can cause.

    `argv` leaves out the program's name and is `sys.argv[1:]` by default. `--debug` may stand anywhere before
    a lone `--` and lets the whole trace of an error through to standard error.
    """
    _STARTED[0] = time.monotonic()
    words, debug = _without_debug(list(sys.argv[1:] if argv is None else argv))
    _open_what_is_closed()
    _never_fail_to_print()
    _share_the_cores()
    _take_large_pages()
    _look_for_garbage_less()
    warnings.showwarning = _show_warning
    try:
        code = _dispatch(words, verbs)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _silence_stdout()
        return READER_LEFT
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except Exception as error:
        if (reason := _stdout_fails(error)) is not None:
            _complain(f"standard output can't be written: {reason}")
            return FAILED
        return _report(error, debug=debug)


def began() -> float | None:
    """Give when the command began, as time.monotonic tells it: before torch was loaded; None outside of a command."""
    return _STARTED[0] or None


def build(verb: str, verbs: Mapping[str, Verb] = VERBS) -> App:
    """Import one verb's module and wrap its `command` in a cyclopts App; the verb is its first word.

    A bool parameter becomes a flag that switches it on; one that is on by default names the flag that
    switches it off with `Annotated[bool, Parameter(negative="--no-shuffle")]`.
    """
    from importlib import import_module

    from cyclopts import App, Parameter

    from regard.cli.layout import Columns, default_text

    app = App(
        name="regard",
        version_flags=[],
        help_format="plaintext",
        help_formatter=Columns(),
        default_parameter=Parameter(negative=(), show_default=default_text),
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    app.command(import_module(verbs[verb].module).command, name=verb)
    return app


def parse(words: Sequence[str], verbs: Mapping[str, Verb] = VERBS) -> Callable[[], Any]:
    """Read a verb and its arguments, and return the call that would run it; nothing has run yet.

    A lone `-` among the words is a value like any other, by custom standard input.

    Raises:
        cyclopts.CycloptsError: for words that don't fit the verb's signature.
    """
    # cyclopts takes a lone hyphen for a flag. No argument of a process can hold a NUL, so this stands for it
    # alone.
    hidden = [_HYPHEN if word == "-" else word for word in words]
    command, bound, _ = build(words[0], verbs).parse_args(hidden)
    args = [_show_hyphen(value) for value in bound.args]
    kwargs = {name: _show_hyphen(value) for name, value in bound.kwargs.items()}
    return lambda: command(*args, **kwargs)


def _show_hyphen(value: Any) -> Any:
    """Put the lone hyphens back that `parse` hid from cyclopts."""
    if isinstance(value, str):
        return "-" if value == _HYPHEN else value
    if isinstance(value, (list, tuple)):
        return type(value)([_show_hyphen(item) for item in value])
    if hasattr(value, "__dataclass_fields__"):  # flags that verbs share
        return type(value)(
            **{name: _show_hyphen(getattr(value, name)) for name in value.__dataclass_fields__}
        )
    if isinstance(value, os.PathLike) and os.fspath(value) == _HYPHEN:
        return type(value)("-")  # type: ignore[call-arg]
    return value


def _dispatch(words: list[str], verbs: Mapping[str, Verb]) -> int:
    """Answer the root flags, or run one verb."""
    if words[:1] == ["help"] and "help" not in verbs:
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("--help", "-h"):
        print(_root_help(verbs))
        return 0
    if words[0] in ("--version", "-V"):
        import regard

        print(f"regard {regard.__version__}")
        return 0
    if words[0] not in verbs:
        raise ConfigError(_unknown(words[0], verbs))
    result = parse(words, verbs)()
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def _root_help(verbs: Mapping[str, Verb]) -> str:
    """Lay out the help page: the verbs by group, in the order of the table."""
    width = max((len(name) for name in verbs), default=0)
    lines = [
        "Regard: train, load and run Transformers, and see what they attend to.",
        "",
        "Usage: regard VERB [ARGUMENTS]",
    ]
    for group in dict.fromkeys(verb.group for verb in verbs.values()):
        lines += ["", f"{group}:"]
        lines += [f"  {name:{width}}  {verb.help}" for name, verb in verbs.items() if verb.group == group]
    lines += [
        "",
        "Everywhere:",
        f"  {'--help':{width}}  Show this page, or after a verb that verb's own",
        f"  {'--version':{width}}  Show the version",
        f"  {'--debug':{width}}  Show the whole trace of an error",
    ]
    return "\n".join(lines)


def _unknown(word: str, verbs: Mapping[str, Verb]) -> str:
    """Say which verb or flag was meant."""
    flags = ("--help", "--version", "--debug")
    kind, choices = ("flag", flags) if word.startswith("-") else ("verb", tuple(verbs))
    hint = suggest(word, choices)
    return f"unknown {kind} {word!r}; {hint or 'choose from ' + ', '.join(choices)}"


def _without_debug(words: list[str]) -> tuple[list[str], bool]:
    """Take `--debug` out of the words; what follows a lone `--` is the user's text and stays."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    return kept + words[end:], len(kept) < end


def _report(error: Exception, *, debug: bool) -> int:
    """Print one line about an error, or its whole trace, and choose the exit code."""
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, RegardError):
        text, code = str(error), error.exit_code
    elif (parse_error := _parse_error(error)) is not None:
        text, code = parse_error, BAD_INPUT
    elif isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("regard"):
        library = (error.name or "").partition(".")[0]
        text = f"the library {library!r} is not installed; run: pip install {library}"
        code = DependencyError.exit_code
    else:
        said = str(error)
        text = f"{type(error).__name__}: {said}" if said else type(error).__name__
        text, code = text if debug else f"{text}; use --debug to see the trace", FAILED
    _complain(text)
    return code


def _parse_error(error: Exception) -> str | None:
    """Say why cyclopts could not read the words; None for any other error."""
    # Never imported for this: an error of its own has loaded it.
    cyclopts: Any = sys.modules.get("cyclopts")
    if cyclopts is None or not isinstance(error, cyclopts.CycloptsError):
        return None
    text = str(error).replace(_HYPHEN, "-").strip()
    if isinstance(error, cyclopts.UnknownOptionError) and "Did you mean" not in text:
        text += " If it is text, put -- before it."
    return text[:1].lower() + text[1:]


def _complain(text: str) -> None:
    """Print one safe line to standard error."""
    from regard.cli.show import one_line

    try:
        print(f"regard: {one_line(text)}", file=sys.stderr, flush=True)
    except OSError:  # nobody reads standard error: the exit code still tells
        pass


def _share_the_cores() -> None:
    """Let torch's threads sleep soon when they wait for each other; a user's own setting stays.

    By default they spin for milliseconds, and where anything else runs on the machine, the one that spins keeps the
    core from the one that it waits for: a step takes fifteen times as long (docs/log.md). It must be said before torch
    is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def _take_large_pages() -> None:
    """Let torch ask for memory in large pages where the system has them; a user's own setting stays.

    A training step takes and gives back a gradient of every weight. In pages of 4 KiB the first touch of each costs
    more than the number that is written there (docs/log.md). It must be said before torch is loaded.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _look_for_garbage_less() -> None:
    """Start and end sooner: torch brings half a million objects that live as long as the process.

    Looking through them for garbage takes a fifth of the time that importing takes, and half a second at the end.
    """
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """Print a warning as one safe line, like an error."""
    _complain(f"warning: {message}")


def _open_what_is_closed() -> None:
    """Put nothing where the shell has closed a standard stream: there is nothing to read, nowhere to print."""
    # In this order each gets its own number again, which else the next file that is opened would have.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _stdout_fails(error: Exception) -> str | None:
    """Tell whether an error comes from standard output, as on a full disk: why, and let go of it; else None."""
    beneath = error if isinstance(error, OSError) else error.__context__
    if not isinstance(beneath, OSError) or beneath.filename is not None or beneath.errno not in _FULL:
        return None
    try:
        # An error in printing doesn't say where it was; where it was elsewhere, an empty line does no harm.
        print(flush=True)
    except BrokenPipeError:
        return None
    except OSError as again:
        _silence_stdout()
        return again.strerror or str(again)
    return None


def _never_fail_to_print() -> None:
    """Show what a terminal's encoding lacks as an escape, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    """Point standard output at nothing, so that Python's own flush at exit does not fail once more."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # standard output is no file, as under a test's capture
        pass
