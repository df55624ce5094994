"""`regard chat`: a conversation in a terminal, or through standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output, one_line, plain, printable
from regard.cli.texts import FLAGS, Asked, Flags, Named, lines_of_stdin
from regard.errors import ConfigError, DataError, RegardError, suggest

if TYPE_CHECKING:
    from regard.model import Model
    from regard.tasks.chat import Reply

_HELP = "/reset begins anew, /save FILE writes the conversation, /quit ends; // at the beginning stands for one /."
_COMMANDS = ("/reset", "/save", "/quit", "/help")
_PASTED = 0.05  # seconds within which more lines belong to the same paste


def command(
    model: Named = None,
    /,
    *messages: str,
    message: Annotated[list[str] | None, Parameter(negative=())] = None,
    system: str | None = None,
    template: Path | None = None,
    max_tokens: OptionalCount = None,
    temperature: float | None = None,
    top_k: OptionalCount = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    stop: Annotated[list[str] | None, Parameter(negative=())] = None,
    seed: OptionalCount = None,
    encoding: str = "utf-8",
    flags: Flags = FLAGS,
) -> None:
    """Talk with a model that has a chat template: in a terminal, or one message for each line of standard input.

    In a terminal /reset begins anew, /save FILE writes the conversation, and /quit ends it. Several pasted lines are
    one message. What isn't given is what the model was published with.

    Parameters
    ----------
    messages
        Say this, and print the reply; several make a conversation.
    message
        The same as a flag; may be given several times.
    system
        What the model is told before the conversation.
    template
        A file with a chat template, for a model that has none or another.
    max_tokens
        The longest reply.
    temperature
        0 always takes the likeliest token, 1 samples as the model believes, more is wilder.
    top_k
        Sample among so many likeliest tokens; 0: all.
    top_p
        Sample among the fewest tokens whose probabilities reach this sum.
    min_p
        Sample among tokens at least this share as likely as the likeliest.
    repetition_penalty
        Above 1 makes tokens less likely that stand there already.
    stop
        A string that ends a reply; may be given several times.
    seed
        Of the samples; the same seed and messages give the same replies.
    encoding
        Of standard input.
    """
    asked = Asked("chat", model, messages, flags)
    given = [*asked.texts, *(message or [])]
    loaded, out = asked.open(), asked.out
    from regard.tasks.chat import with_template
    from regard.tasks.generate import sampling

    choice = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "seed": seed,
    }  # fmt: skip
    own = None if template is None else _read(template)
    with_template(loaded.parts.tokenizer, own)  # refuses what can't be before anybody has typed
    sampling(loaded.parts, max_tokens=1, **choice)
    settings = {**choice, "template": own, "max_tokens": max_tokens, "stop": stop or []}
    talk = _Talk(out, loaded, system, settings)
    if not given and not flags.json and sys.stdin.isatty() and sys.stdout.isatty():
        _converse(talk)
        return
    for number, text in enumerate(given, 1):
        if not text.strip():
            raise ConfigError(f"message {number} is blank; say something, or leave it out.")
    for text in given or lines_of_stdin(encoding):
        if text.strip():
            talk.say(text)
    asked.result({"replies": plain(talk.replies), "messages": talk.messages})


class _Talk:
    """Hold a conversation, and print the replies while they are written."""

    def __init__(self, out: Output, model: Model, system: str | None, settings: dict[str, Any]) -> None:
        self.out, self._model, self._settings = out, model, settings
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self._dropped = 0
        self.messages: list[dict[str, str]] = list(self._system)
        self.replies: list[Reply] = []

    def reset(self) -> None:
        """Begin anew, with the system message."""
        self.messages, self._dropped = list(self._system), 0

    def say(self, text: str) -> None:
        """Send a message and print the reply; where that fails or is interrupted, nothing was said."""
        asked = [*self.messages, {"role": "user", "content": text}]
        reply = self._model.chat(asked, on_text=self._write, **self._settings)
        self._write("\n")
        if reply.dropped > self._dropped:
            self.out.note(f"(the context is full: the oldest {reply.dropped} messages are left out)")
        if not reply.finished:
            self.out.note(f"(the reply was ended after {reply.tokens} tokens)")
        self._dropped = reply.dropped
        self.messages = [*asked, {"role": "assistant", "content": reply.text}]
        self.replies.append(reply)

    def save(self, path: Path) -> None:
        """Write the messages as JSON, never over a file.

        Raises:
            DataError: there is a file already, or it can't be written.
        """
        from regard.checkpoints.files import write_json_atomic

        if path.exists():
            raise DataError(f"{path} exists already; name another file.")
        write_json_atomic(path, {"messages": self.messages})

    def _write(self, text: str) -> None:
        self.out.stream.write(printable(text, keep="\n\t"))
        self.out.stream.flush()


def _converse(talk: _Talk) -> None:
    """Read messages in a terminal until it ends."""
    try:
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")
    except ImportError:  # without it a line can still be typed
        pass
    talk.out.note(_HELP)
    while True:
        try:
            text = _typed()
        except EOFError:
            talk.out.line()
            return
        if not text.strip():
            continue
        if text.startswith("/") and not text.startswith("//") and "\n" not in text:
            if not _command(talk, text):
                return
            continue
        try:
            talk.say(text[1:] if text.startswith("//") else text)
        except KeyboardInterrupt:
            talk.out.note("\n(stopped; the message and the reply are forgotten)")
        except RegardError as error:
            talk.out.note(one_line(str(error)))


def _command(talk: _Talk, text: str) -> bool:
    """Do what a line with a slash says; False where it ends the conversation."""
    word, _, rest = text.strip().partition(" ")
    if word == "/quit":
        return False
    if word == "/reset":
        talk.reset()
        talk.out.note("(a new conversation)")
    elif word == "/save" and rest.strip():
        try:
            talk.save(Path(rest.strip()))
            talk.out.note(f"(saved to {rest.strip()})")
        except RegardError as error:
            talk.out.note(one_line(str(error)))
    else:
        hint = "" if word in _COMMANDS else suggest(word, _COMMANDS)
        talk.out.note(f"{hint} {_HELP}".strip())
    return True


def _typed() -> str:
    """Read one message: a line, and the lines that came with it in one paste."""
    import select

    lines = [input("> ")]
    while select.select([sys.stdin], [], [], _PASTED)[0]:
        try:
            lines.append(input())
        except EOFError:
            break
    return "\n".join(lines)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"--template {path} can't be read: {reason}.") from error
