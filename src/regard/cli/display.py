"""What a person sees of a run: a live picture in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from regard.cli.show import Output, printable
from regard.tasks.preparation import Prepared, Working
from regard.training.events import Ended, Evaluated, Saved, Started, Stepped, Warned
from regard.training.journal import Journal

if TYPE_CHECKING:
    from regard.runs import RunEvent

_BARS = "▁▂▃▄▅▆▇█"
_WIDEST = 100  # columns of the picture, where the terminal has them
_SAMPLE_LINES = 8
_MOST_POINTS = 2000
_PLAIN_EVERY = 10.0  # seconds between lines where there is no terminal


class Display:
    """Take a run's events and show them; a context manager, since a live picture must be taken down.

    Attributes:
        path: the run's folder, once everything lies ready in it.
    """

    def __init__(self, output: Output, title: str) -> None:
        self.output, self.title = output, title
        self.path: Path | None = None
        self.losses: list[float] = []
        self.metrics: list[dict[str, float]] = []
        self.best: tuple[int, dict[str, float]] | None = None
        self.sample: str | None = None
        self.facts: list[str] = []
        self.working: Working | None = Working("starting")
        self.stepped: Stepped | None = None
        self._live: Any = None
        self._stepped_at = 0.0
        self._last_line = -math.inf
        self._said: set[str] = set()

    def __enter__(self) -> Display:
        if self.output.stream.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self.output.stream)
            if not console.is_dumb_terminal:
                self._live = Live(
                    get_renderable=self.picture, console=console, refresh_per_second=4, transient=False
                )
                self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the last picture standing, and give the terminal back."""
        if self._live is not None:
            self.working = None
            self._live.stop()
            self._live = None

    def __call__(self, event: RunEvent) -> None:
        """Show an event."""
        match event:
            case Working():
                self.working = event
                if event.what not in self._said and event.what != "evaluating":
                    self._say(event.what)
                self._said.add(event.what)
            case Prepared():
                if self.path is not None:  # the next of several runs
                    self.losses, self.metrics, self.best, self.sample = [], [], None, None
                self.path, self.working = event.path, Working("starting")
                self._fact(f"{event.path}: {event.summary}")
            case Started():
                self.working = None
                self._started(event)
            case Stepped():
                self._step(event)
            case Evaluated():
                self._evaluated(event)
            case Warned():
                self._warn(event.text)
            case Saved() | Ended():
                self.working = None

    def _started(self, event: Started) -> None:
        start = f"going on from step {event.step:,}" if event.resumed_from else "beginning"
        self._fact(f"{start}: {event.parameters:,} weights on {event.device} in {event.precision}")
        if self.path is not None and event.resumed_from:
            for line in Journal(self.path / "metrics.jsonl").read():
                if line.get("kind") == "train" and isinstance(line.get("nll"), float):
                    self._add_loss(line["nll"])

    def _step(self, event: Stepped) -> None:
        self.stepped, self._stepped_at, self.working = event, time.monotonic(), None
        self._add_loss(event.nll)
        if self._live is None and self._stepped_at - self._last_line >= _PLAIN_EVERY:
            self._last_line = self._stepped_at
            self._say(_line_of(event))

    def _evaluated(self, event: Evaluated) -> None:
        self.working = None
        self.metrics.append(dict(event.metrics))
        self.sample = event.sample
        if event.improved:
            self.best = event.step, dict(event.metrics)
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
        sample = "".join(f"\n    {line}" for line in _lines(event.sample))
        self._say(f"step {event.step:,}: {metrics}{' (best)' if event.improved else ''}{sample}")

    def _add_loss(self, loss: float) -> None:
        if not math.isfinite(loss):
            return
        self.losses.append(loss)
        if len(self.losses) > _MOST_POINTS:
            halves = zip(self.losses[::2], self.losses[1::2], strict=False)
            self.losses = [(a + b) / 2 for a, b in halves]

    def _fact(self, line: str) -> None:
        self.facts.append(line)
        self._say(line)

    def _say(self, line: str) -> None:
        if self._live is None:
            self.output.line(line)

    def _warn(self, text: str) -> None:
        if self._live is None:
            print(f"regard: {printable(text)}", file=sys.stderr, flush=True)
        else:
            self._live.console.print(f"! {printable(text)}", style="yellow", markup=False, highlight=False)

    # The live picture

    def picture(self) -> Any:
        """Lay out the live picture: what is going on, progress, loss, metrics, a sample."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        width = min(_WIDEST, self._live.console.width if self._live is not None else _WIDEST)
        inner = max(20, width - 4)
        lines = [Text(printable(fact), style="dim") for fact in self.facts]
        if self.stepped is not None:
            lines += self._progress(self.stepped, inner)
        if self.working is not None:
            lines.append(_working(self.working, inner))
        if self.losses:
            value = Text(f"{'loss':14}{self.losses[-1]:9.4f}  ")
            lines.append(value + Text(_spark(self.losses, inner - 26), style="cyan"))
        for place, name in enumerate(self.metrics[-1] if self.metrics else ()):
            values = [m[name] for m in self.metrics if name in m]
            shown = Text(f"{name:14.14}{values[-1]:9.4g}  ")
            line = shown + Text(_spark(values, min(30, inner - 26)), style="magenta")
            if place == 0 and self.best is not None and name in self.best[1] and inner > 70:
                line += Text(f"  best {self.best[1][name]:.4g} at step {self.best[0]:,}", style="dim")
            lines.append(line)
        lines += [
            Text(printable(line), style="italic green") for line in ["", *_lines(self.sample)] if self.sample
        ]
        title = f"regard train {self.title}"
        return Panel(Group(*lines), title=title, title_align="left", width=width, border_style="dim")

    def _progress(self, now: Stepped, inner: int) -> list[Any]:
        from rich.text import Text

        since = time.monotonic() - self._stepped_at if self._live is not None else 0.0
        elapsed = now.elapsed + since
        left = None if now.remaining is None else max(0.0, now.remaining - since)
        of = f" of {now.steps:,}" if now.steps else ""
        place = f"step {now.step:,}{of}, epoch {now.epoch + 1:,}"
        rest = f", {_clock(left)} left" if left is not None else ""
        speed = f"{now.tokens_per_second:,.0f} tokens/s, " if math.isfinite(now.tokens_per_second) else ""
        return [
            _bar(_share(now), inner - len(place) - 2) + Text(f"  {place}", style="bold"),
            Text(f"{_clock(elapsed)}{rest}, {speed}rate {now.lr:.2g}"),
        ]


def _working(work: Working, inner: int) -> Any:
    from rich.text import Text

    label = f"{work.what}{f': {work.rows:,} rows' if work.rows and work.share is None else ''} "
    if work.share is None:
        return Text(f"{label}...", style="yellow")
    return (
        Text(label, style="yellow")
        + _bar(work.share, min(40, inner - len(label) - 5))
        + f" {work.share:4.0%}"
    )


def _bar(share: float, width: int) -> Any:
    from rich.text import Text

    width = max(5, width)
    filled = round(share * width)
    return Text("━" * filled, style="green") + Text("━" * (width - filled), style="bright_black")


def _lines(sample: str | None) -> list[str]:
    """Give the first lines of a sample that aren't blank."""
    lines = [line for line in (sample or "").split("\n") if line.strip()]
    return lines[:_SAMPLE_LINES] + (["..."] if len(lines) > _SAMPLE_LINES else [])


def _clipped(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 3]}..."


def _line_of(event: Stepped) -> str:
    of = f"/{event.steps:,}" if event.steps else ""
    left = f", {_clock(event.remaining)} left" if event.remaining is not None else ""
    return (
        f"step {event.step:,}{of}, epoch {event.epoch + 1:,}: loss {event.nll:.4f}, "
        f"{event.tokens_per_second:,.0f} tokens/s, {_clock(event.elapsed)}{left}"
    )


def _share(event: Stepped) -> float:
    if event.remaining is not None:
        return event.elapsed / max(1e-9, event.elapsed + event.remaining)
    return event.step / event.steps if event.steps else 0.0


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _spark(values: list[float], width: int) -> str:
    """Draw values as a row of bars, at most `width` of them, each the mean of its stretch."""
    finite = [v for v in values if math.isfinite(v)]
    count = min(max(1, width), len(finite))
    parts = [finite[i * len(finite) // count : (i + 1) * len(finite) // count] for i in range(count)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means, default=0.0), max(means, default=0.0)
    return "".join(_BARS[min(7, int((m - low) / (high - low or 1) * 8))] for m in means)
