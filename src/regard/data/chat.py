"""Write a conversation as the text, and as the ids, that a model was trained on.

A published model brings a chat template: a Jinja program that writes messages, with the special tokens
between them, as one text. `render_chat` runs it, bounded in time, memory and output, in a process of its own
(tokenizer_sandbox.py). `encode_chat` gives ids, and keeps apart what the template wrote from what stands in
the messages: a user who writes `<|im_end|>` has written ten ordinary characters.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.data import tokenizer_sandbox
from regard.errors import CheckpointError, ConfigError, DataError, DependencyError

if TYPE_CHECKING:
    from regard.data.tokenizers import Tokenizer

__all__ = ["encode_chat", "render_chat"]

LONGEST_TEMPLATE = 1_000_000  # characters
LIMIT = 1_000_000  # characters of a conversation
SECONDS = 2.0
DEEPEST = 32  # lists and mappings inside each other in a message
GRACE = 30.0  # seconds that the process gets to start, on a machine that is busy
# Values that templates compare with and build names from; whatever else stands in a message is its text.
ROLES = "system user assistant tool function developer model ipython environment context documents critic"
TYPES = "text image image_url audio video document function object string number integer boolean array null"


def render_chat(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    special: Mapping[str, str],
    add_generation_prompt: bool = True,
    tools: Sequence[Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    limit: int = LIMIT,
    seconds: float = SECONDS,
) -> str:
    """Write a conversation as text.

    template
        A Jinja template as published models bring it.
    messages
        Mappings with `role` and `content`, or whatever else the template reads.
    special
        The special tokens by the names that templates use: `bos_token`, `eos_token`.
    add_generation_prompt
        Whether the text ends where the assistant is to begin.
    tools
        Descriptions of functions that the model may call, for templates that know them.
    variables
        More variables for the template, such as `enable_thinking`.
    limit, seconds
        The most characters it may write, and the longest it may take.

    Raises DataError where the template refuses the messages or they are no JSON; CheckpointError where it is
    broken, or exceeds a limit; DependencyError without jinja2.
    """
    values = _variables(messages, special, add_generation_prompt, tools, variables)
    return _render(template, [values], limit=limit, seconds=seconds)[0]


def encode_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Any] | None = None,
    variables: Mapping[str, Any] | None = None,
    limit: int = LIMIT,
    seconds: float = SECONDS,
) -> list[int]:
    """Give the ids of a conversation: special ones for what the template writes, text for the messages.

    The conversation is written twice, the second time with every letter of the messages replaced by a secret
    character. A special token that stands in both, at the same place, is the template's. Where the two can't
    be laid side by side, because the template looks into the messages or changes them, it is written once
    more with each special name in the messages broken by that character; then it must hold the same special
    tokens in the same order as the second one.

    Added tokens that aren't marked as special, but that the template writes, are special here too, unless it
    looks for them in the messages (`<think>`).

    Arguments and errors are those of `render_chat`; further a CheckpointError where the tokenizer has no chat
    template, and a DataError where the template's special tokens can't be told from the messages' text.
    """
    template = tokenizer.chat_template
    if template is None:
        raise CheckpointError(
            "this tokenizer has no chat template: its model takes plain text, or chat_template.jinja is missing "
            "from its directory"
        )
    tokenizer = _marked(tokenizer, template)
    added = tokenizer.special_tokens
    names = sorted((name for name in added if name.strip()), key=len, reverse=True)
    special = {f"{role}_token": name for role, name in tokenizer.roles.items()}
    values = _variables(messages, special, add_generation_prompt, tools, variables)
    secret = _secret(template + json.dumps(values, ensure_ascii=False))

    def hidden(text: str) -> str:
        return "".join(c if c.isspace() else secret for c in text)

    masked = _untrusted(values, hidden)
    plain, mask = _render(template, [values, masked], limit=limit, seconds=seconds)
    find = re.compile("|".join(map(re.escape, names)) if names else r"(?!)")
    marks = list(find.finditer(mask))
    if len(plain) != len(mask) or any(a not in (b, secret) for a, b in zip(mask, plain, strict=True)):
        ahead = re.compile(f"(?={find.pattern})")

        def broken(text: str) -> str:
            for found in reversed(list(ahead.finditer(text))):
                text = text[: found.start() + 1] + secret + text[found.start() + 1 :]
            return text

        plain = _render(template, [_untrusted(values, broken)], limit=2 * limit, seconds=seconds)[0]
        expected = [m[0] for m in marks]
        marks = list(find.finditer(plain))
        if [m[0] for m in marks] != expected:
            raise DataError(
                "the chat template makes special tokens out of what the messages say, so that the two can't be "
                "told apart; take the names of special tokens out of the messages"
            )
    return _encode_parts(tokenizer, plain, [(m.start(), m.end()) for m in marks], secret)


def _marked(tokenizer: Tokenizer, template: str) -> Tokenizer:
    """Give a tokenizer for which the added tokens that the template writes are special, so that text is none."""
    from tokenizers import Tokenizer as Backend

    from regard.data.tokenizers import Tokenizer

    names = frozenset(
        token.content
        for token in tokenizer._backend.get_added_tokens_decoder().values()
        if not token.special and token.content.strip() and _writes(template, token.content)
    )
    if not names:
        return tokenizer
    if names not in tokenizer._marked:
        state = json.loads(tokenizer._backend.to_str())
        for token in state["added_tokens"]:
            token["special"] = token["special"] or token["content"] in names
        tokenizer._marked[names] = Tokenizer(Backend.from_str(json.dumps(state)), specials=tokenizer.roles)
    return tokenizer._marked[names]


def _writes(template: str, name: str) -> bool:
    """Tell whether a template writes a token and doesn't look for it in the messages."""
    quoted = rf"""(?P<quote>['"]){re.escape(name)}(\\n)*(?P=quote)"""
    calls = "split|rsplit|partition|rpartition|startswith|endswith|replace|find|index|count"
    looked_for = rf"\.({calls})\(\s*{quoted}|{quoted.replace('quote', 'other')}\s+(not\s+)?in\b"
    return name in template and re.search(looked_for, template) is None


def _encode_parts(tokenizer: Tokenizer, text: str, marks: list[tuple[int, int]], secret: str) -> list[int]:
    """Encode the text between the marks as text, and each mark as the special token it is."""
    added = tokenizer.special_tokens
    ids: list[int] = []
    at = 0
    swallow = False  # some special tokens take the space around them
    for start, end in [*marks, (len(text), len(text))]:
        token = added.get(text[start:end])
        part = text[at:start].replace(secret, "")
        part = part.lstrip() if swallow else part
        part = part.rstrip() if token is not None and token.lstrip else part
        ids += tokenizer.encode_part(part, first=at == 0)
        if token is not None:
            ids.append(token.id)
            swallow = token.rstrip
        at = end
    return ids


# ------------------------------------------------------------------------------------------------- messages


def _variables(
    messages: Sequence[Mapping[str, Any]],
    special: Mapping[str, str],
    add_generation_prompt: bool,
    tools: Sequence[Any] | None,
    variables: Mapping[str, Any] | None,
) -> dict[str, Any]:
    if isinstance(messages, str | bytes | Mapping) or not all(isinstance(m, Mapping) for m in messages):
        raise DataError("a conversation is a list of messages, each with a role and a content")
    values = {
        **special,
        "messages": list(messages),
        "tools": None if tools is None else list(tools),
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
    }
    taken = set(values).intersection(variables or {}) - {"documents"}
    if taken:
        raise ConfigError(f"variables={sorted(taken)} are set by arguments of their own; leave them out")
    values |= variables or {}
    return {name: _plain(value, DEEPEST) for name, value in values.items()}


def _plain(value: Any, depth: int) -> Any:
    """Copy a value made of what JSON knows. Raises DataError for anything else."""
    if depth == 0:
        raise DataError(f"a message nests lists and mappings more than {DEEPEST} deep")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise DataError("a message has a key that is not text")
        return {key: _plain(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(inner, depth - 1) for inner in value]
    raise DataError(
        f"a message holds a {type(value).__name__}; it can hold text, numbers, lists and mappings"
    )


def _untrusted(values: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Change every text that comes from the messages, the tools and the documents."""

    def walk(value: Any, key: str) -> Any:
        if isinstance(value, str):
            known = {"role": ROLES, "type": TYPES}.get(key, "").split()
            return value if value in known else change(value)
        if isinstance(value, dict):
            return {k if re.fullmatch(r"[\w.-]*", k) else change(k): walk(v, k) for k, v in value.items()}
        return [walk(inner, key) for inner in value] if isinstance(value, list) else value

    return {k: walk(v, k) if k in ("messages", "tools", "documents") else v for k, v in values.items()}


def _secret(text: str) -> str:
    """Choose a private character that nobody can have guessed and that stands nowhere in the text."""
    while True:
        character = chr(0xF0000 + secrets.randbelow(0xFFFE))
        if character not in text:
            return character


# ------------------------------------------------------------------------------------------- the other process


def _render(template: str, variables: list[dict[str, Any]], *, limit: int, seconds: float) -> list[str]:
    if len(template) > LONGEST_TEMPLATE:
        raise CheckpointError(
            f"the chat template has {len(template):,} characters, at most {LONGEST_TEMPLATE:,}; it can't be right"
        )
    if not (limit >= 1 and 0 < seconds <= 3600):
        raise ConfigError(f"limit={limit} must be at least 1, and seconds={seconds} between 0 and 3600")
    work = {"template": template, "variables": variables, "limit": limit, "seconds": seconds}
    answer = _WORKER.ask(work, seconds)
    if answer is None:
        raise CheckpointError(
            f"the chat template was stopped: it took more than {seconds:g} s, or too much memory; it can't be right"
        )
    if "texts" in answer:
        return answer["texts"]
    if answer["error"] == "refused":
        raise DataError(f"the chat template refuses these messages: {_line(answer['message'])}")
    if answer["error"] == "limit":
        raise CheckpointError(f"the chat template {_line(answer['message'])}")
    raise CheckpointError(f"the chat template can't be rendered: {_line(answer['message'])}")


def _line(message: str) -> str:
    return " ".join(message.split())[:300]


class _Worker:
    """Keep one process that renders templates, started at the first need and again after it was stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._of_parents: list[subprocess.Popen[bytes]] = []
        self._is_registered = False

    def ask(self, work: Mapping[str, Any], seconds: float) -> dict[str, Any] | None:
        """Give the answer to a piece of work; None where the process was stopped at a limit."""
        line = json.dumps(work).encode() + b"\n"
        with self._lock:
            process = self._started()
            assert process.stdin is not None and process.stdout is not None
            late = threading.Timer(seconds + GRACE, process.kill)
            late.daemon = True
            late.start()
            try:
                process.stdin.write(line)
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = b""
            except BaseException:
                self._stop()  # an answer left in the pipe would be taken for the next one
                raise
            finally:
                late.cancel()
            if not answer.endswith(b"\n"):
                self._stop()
                return None
        found: dict[str, Any] = json.loads(answer)
        return found

    def _started(self) -> subprocess.Popen[bytes]:
        """Give the running process, a new one if there is none."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        import importlib.util

        if importlib.util.find_spec("jinja2") is None:
            raise DependencyError("a chat template needs Jinja: pip install jinja2")
        if not self._is_registered:
            self._is_registered = True
            atexit.register(self._stop)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=self._forget)
        # Not this file's folder but the usual ones are searched for modules (-P).
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(tokenizer_sandbox.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self._process

    def _stop(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            _close(process)
            process.wait()

    def _forget(self) -> None:
        """Leave the process to the one that was forked, for two that write to it would mix their work."""
        process, self._process = self._process, None
        self._lock = threading.Lock()
        if process is not None:
            self._of_parents.append(process)
            _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


_WORKER = _Worker()
