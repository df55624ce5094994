"""Render chat templates in a process of its own, which the system stops at a limit of time or memory.

A template is a program of others. Jinja's sandbox keeps it from files and from Python's insides, but nothing
inside one process can stop `'a' * 10**10` or a loop that doubles a string. So `regard.data.chat` starts this
file as a program, sends it a line of JSON for each piece of work, and reads one back. An alarm, which no code
here catches, ends the process at the time limit even in the middle of one long operation.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

__all__ = ["environment", "main", "render"]

MEMORY = 1 << 30  # bytes that the process may take
LONGEST_POWER = 4096  # bits of a whole number


class RefusedError(Exception):
    """Carry what a template itself objects to."""


class _Clock:
    """Give one time to all of one piece of work."""

    now: Any = None

    def show(self, form: str) -> str:
        """Write the time, in the form of strftime."""
        return str(self.now.strftime(form))


_CLOCK = _Clock()


def environment(limit: int) -> Any:
    """Make the Jinja environment that published chat templates are written for.

    Blocks leave no empty lines; there are loop controls, `raise_exception`, `strftime_now`, a `tojson` that
    keeps characters as they are, and `{% generation %}`, which marks what an assistant said and changes
    nothing. A product or power that would exceed `limit` characters is refused at once.
    """
    from jinja2 import ext, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

    class Generation(ext.Extension):
        """Let `{% generation %}` stand around text."""

        tags = {"generation"}  # noqa: RUF012 - Jinja's own form

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    class Bounded(ImmutableSandboxedEnvironment):
        """Refuse products and powers that only fill the memory."""

        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            """Multiply, or raise to a power, within the bounds."""
            if operator == "**":
                size = (
                    left.bit_length() * abs(right) if isinstance(left, int) and isinstance(right, int) else 0
                )
                if size > LONGEST_POWER:
                    raise SecurityError("a power that is too large")
            else:
                for what, times in ((left, right), (right, left)):
                    is_row = isinstance(times, int) and isinstance(what, str | bytes | list | tuple)
                    if is_row and len(what) * times > limit:
                        raise SecurityError("a product that is too long")
            return super().call_binop(context, operator, left, right)

    def refuse(message: object) -> None:
        raise RefusedError(str(message))

    def as_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    made = Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols])
    made.filters["tojson"] = as_json
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = _CLOCK.show
    return made


@lru_cache(maxsize=8)
def _compiled(template: str, limit: int) -> Any:
    return environment(limit).from_string(template)


def render(work: Mapping[str, Any]) -> dict[str, Any]:
    """Render one template with each of several sets of variables.

    work: `template`, `variables` (a list of mappings), `limit` in characters. Returns `texts`, or an `error`
    (`refused` by the template, `broken`, or `limit`) with its `message`.
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import SecurityError

    limit = work["limit"]
    _CLOCK.now = datetime.now().astimezone()
    try:
        template = _compiled(work["template"], limit)
        texts = []
        for variables in work["variables"]:
            parts: list[str] = []
            size = 0
            for part in template.generate(**variables):
                size += len(part)
                if size > limit:
                    return {"error": "limit", "message": f"writes more than {limit:,} characters"}
                parts.append(part)
            texts.append("".join(parts))
        return {"texts": texts}
    except RefusedError as error:
        return {"error": "refused", "message": str(error)}
    except SecurityError as error:
        return {"error": "limit", "message": f"does what a template may not: {error}"}
    except MemoryError:
        return {"error": "limit", "message": "takes too much memory"}
    except RecursionError:
        return {"error": "limit", "message": "calls itself without an end"}
    except OverflowError as error:
        return {"error": "limit", "message": f"makes something too large: {error}"}
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        return {"error": "broken", "message": f"{type(error).__name__}: {error}{where}"}
    except Exception as error:  # whatever the template's own code runs into
        return {"error": "broken", "message": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answer each line of standard input with a line of standard output, until the input ends."""
    import signal

    alarm = getattr(signal, "setitimer", None)  # not everywhere; the parent has a slower one
    if alarm is not None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's affair
    _limit_memory()
    for line in sys.stdin.buffer:
        work = json.loads(line)
        if alarm is not None:
            alarm(signal.ITIMER_REAL, work["seconds"])
        answer = json.dumps(render(work)).encode()
        if alarm is not None:
            alarm(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, OSError, ValueError):
        pass  # a system without such limits: the time still is one


if __name__ == "__main__":
    main()
