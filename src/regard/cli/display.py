"""What a person sees of a run: a live picture in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from regard.cli.show import Output, printable
from regard.training.events import Ended, Evaluated, Event, Saved, Started, Stepped, Warned

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40


class Display:
    """Take a run's events and show them; a context manager, since a live picture must be taken down."""

    def __init__(self, output: Output, title: str) -> None:
        self.output, self.title = output, title
        self.losses: list[float] = []
        self.metrics: list[dict[str, float]] = []
        self.sample: str | None = None
        self.started: Started | None = None
        self.stepped: Stepped | None = None
        self.best_step = 0
        self._live: Any = None
        self._last_line = 0.0

    def __enter__(self) -> Display:
        stream = self.output.stream
        if stream.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=stream)
            self._live = Live(self._picture(), console=console, refresh_per_second=4, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Started():
                self.started = event
                self._say(_started(event))
            case Stepped():
                self.stepped = event
                self.losses.append(event.nll)
                if self._live is None and event.elapsed - self._last_line >= 10:
                    self._last_line = event.elapsed
                    self._say(_stepped(event))
            case Evaluated():
                self.metrics.append(dict(event.metrics))
                self.sample = event.sample
                self.best_step = event.step if event.improved else self.best_step
                self._say(_evaluated(event))
            case Warned():
                self._warn(event.text)
            case Saved() | Ended():
                pass
        if self._live is not None:
            self._live.update(self._picture())

    def _say(self, line: str) -> None:
        if self._live is None:
            self.output.line(line)

    def _warn(self, text: str) -> None:
        if self._live is None:
            print(f"regard: {printable(text)}", file=sys.stderr, flush=True)
        else:
            self._live.console.print(f"! {printable(text)}", style="yellow", markup=False, highlight=False)

    def _picture(self) -> Any:
        """Lay out the live picture: progress, loss, metrics, a sample."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        lines: list[Any] = []
        if self.started is None:
            lines.append(Text("reading the data ...", style="dim"))
        else:
            s = self.started
            lines.append(Text(f"{s.parameters:,} weights on {s.device} in {s.precision}", style="dim"))
        if self.stepped is not None:
            now = self.stepped
            share = _share(now)
            filled = round(share * _WIDTH)
            of = f" of {now.steps:,}" if now.steps else ""
            bar = Text("━" * filled, style="green") + Text("━" * (_WIDTH - filled), style="dim")
            lines.append(bar + Text(f"  step {now.step:,}{of}, epoch {now.epoch + 1}", style="bold"))
            left = f", {_clock(now.remaining)} left" if now.remaining is not None else ""
            lines.append(
                Text(f"{_clock(now.elapsed)}{left}, {now.tokens_per_second:,.0f} tokens/s, rate {now.lr:.2g}")
            )
            lines.append(Text(f"loss    {now.nll:8.4f}  ") + Text(_spark(self.losses), style="cyan"))
        for name in self.metrics[-1] if self.metrics else ():
            values = [m[name] for m in self.metrics if name in m]
            lines.append(Text(f"{name:8}{values[-1]:8.4g}  ") + Text(_spark(values), style="magenta"))
        if self.sample:
            lines.append(Text(printable(self.sample, keep="\n"), style="italic"))
        return Panel(
            Group(*lines),
            title=f"regard train {self.title}",
            title_align="left",
            width=min(100, self._columns()),
        )

    def _columns(self) -> int:
        return self._live.console.width if self._live is not None else 100


def _started(event: Started) -> str:
    start = f"going on from step {event.step}" if event.resumed_from else "beginning"
    return f"{start}: {event.parameters:,} weights on {event.device} in {event.precision}"


def _stepped(event: Stepped) -> str:
    of = f"/{event.steps}" if event.steps else ""
    left = f", {_clock(event.remaining)} left" if event.remaining is not None else ""
    return (
        f"step {event.step}{of} epoch {event.epoch + 1}: loss {event.nll:.4f}, "
        f"{event.tokens_per_second:,.0f} tokens/s, "
        f"{_clock(event.elapsed)}{left}"
    )


def _evaluated(event: Evaluated) -> str:
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
    sample = f"\n    {event.sample}".replace("\n", "\n    ") if event.sample else ""
    return f"step {event.step}: {metrics}{' (best)' if event.improved else ''}{sample}"


def _share(event: Stepped) -> float:
    if event.remaining is not None:
        return event.elapsed / max(1e-9, event.elapsed + event.remaining)
    return event.step / event.steps if event.steps else 0.0


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _spark(values: list[float]) -> str:
    """Draw values as a row of bars, each the mean of its stretch."""
    finite = [v for v in values if v == v and abs(v) != float("inf")]
    if not finite:
        return ""
    count = min(_WIDTH, len(finite))
    parts = [finite[i * len(finite) // count : (i + 1) * len(finite) // count] for i in range(count)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    return "".join(_BARS[min(7, int((m - low) / (high - low or 1) * 8))] for m in means)
