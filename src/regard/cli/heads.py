"""`regard heads`: what every head of a model does, and what the model is without it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from regard.cli.numbers import OptionalCount
from regard.cli.show import Output, printable
from regard.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from regard.look.measures import HeadMeasures
    from regard.look.roles import Role
    from regard.model import Model
    from regard.tasks.looking import Reading
    from regard.tasks.looking_effects import Effect

_TEXTS = 100
_SEVERAL = Parameter(consume_multiple=True, negative=())


def command(
    model: str,
    /,
    *data: str,
    limit: OptionalCount = None,
    layer: Annotated[list[str] | None, _SEVERAL] = None,
    rows: OptionalCount = None,
    effects: bool = False,
    how: Literal["zero", "mean"] | None = None,
    sort: str | None = None,
    columns: Annotated[list[str] | None, _SEVERAL] = None,
    split: str | None = None,
    encoding: str = "utf-8",
    skip_long: bool = False,
    device: str = "cpu",
    json: bool = False,
) -> None:
    """Say what every head does: its role, the measures that speak for it, and what the model is without it.

    On a run of `regard demo` without data, find the heads that carry the pronoun's noun and those that align words,
    and switch the best one off: what becomes of il and elle.

    Parameters
    ----------
    model
        The model's folder, or a hub id (owner/name).
    data
        Texts, one a line; for an encoder-decoder sources and targets: two files, or a table.
    limit
        Texts that are read, the first ones; unset: 100. On a demo's run: sentences in each half; unset: 1200.
    layer
        Layers to show: encoder.0, decoder.3, cross.1; or single heads: encoder.0.5; unset: all.
    rows
        Tokens of each text whose rows are measured, evenly spaced; unset: all.
    effects
        Switch each head off, and say what that does to the loss.
    how
        What takes a head's place with --effects: zero (as set) or its mean.
    sort
        By layer (as set), role, effect or a measure's name.
    columns
        The columns of a table that hold the texts, or sources and targets.
    split
        Of a hub data set.
    encoding
        Of text files.
    skip_long
        Leave texts out that are longer than the context, counted.
    device
        cpu, cuda, cuda:N, mps or auto.
    json
        Print one JSON object on standard output.
    """
    out = Output(json)
    for flag, number in (("limit", limit), ("rows", rows)):
        if number is not None and number < 1:
            raise ConfigError(f"--{flag} {number} must be at least 1.")
    if how is not None and not effects:
        raise ConfigError(f"--how {how} is for --effects.")
    _check_sort(sort, effects)
    if not data:
        given = {"layer": layer, "rows": rows, "effects": effects or None, "sort": sort, "columns": columns,
                 "split": split, "skip-long": skip_long or None}  # fmt: skip
        for name, value in given.items():
            if value is not None:
                raise ConfigError(f"--{name} is for data; name a file of texts.")
        _study(model, limit, device, out)
        return
    from regard.model import load

    loaded = load(model, device=device)
    texts, skipped = _read(loaded, data, limit or _TEXTS, columns, split, encoding, skip_long)
    found = _measure(loaded, texts, layer, rows, out)
    changes: dict[tuple[str, int], Effect] = {}
    if effects:
        names = [f"{one.layer}.{one.head}" for one in found]
        changes = _effects(loaded, texts, names, how or "zero", out)
    _show(model, data, found, changes, sort or "layer", len(texts), skipped, out)


def _check_sort(sort: str | None, effects: bool) -> None:
    """Refuse an order that there is not."""
    if sort == "effect" and not effects:
        raise ConfigError("--sort effect needs --effects.")
    if sort not in (None, "layer", "role", "effect"):
        from regard.errors import suggest
        from regard.look.measures import MEASURES

        if sort not in MEASURES:
            known = ("layer", "role", "effect", *MEASURES)
            hint = suggest(str(sort), known) or f"choose from {', '.join(known)}."
            raise ConfigError(f"--sort {sort!r} is no order; {hint}")


def _read(
    model: Model, data: Sequence[str], limit: int, columns: list[str] | None, split: str | None, encoding: str,
    skip_long: bool,
) -> tuple[list[Reading], int]:  # fmt: skip
    """Read so many texts as the model reads them; tell how many were left out."""
    from regard.data.sources import BY_SUFFIX, open_source
    from regard.tasks.looking import read

    config = model.config
    paired = config.kind == "encoder-decoder" and config.head == "lm"
    tables = any(
        name.startswith("hub:") or Path(name.removesuffix(".gz")).suffix.lower() in BY_SUFFIX for name in data
    )
    fields = ("source", "target") if paired else ("text",)
    source = open_source(
        list(data), fields=fields, columns=columns, split=split,
        documents=None if paired or tables else "line", encoding=encoding,
    )  # fmt: skip
    found: list[Reading] = []
    skipped = 0
    for row in source:
        if len(found) == limit:
            break
        text, *rest = (str(row.values[name]) for name in fields)
        target = rest[0] if rest else None
        try:
            found.append(read(model.parts, text, target, target_tokenizer=model.target_tokenizer))
        except DataError as error:
            if not skip_long or "context" not in str(error):
                hint = (
                    ""
                    if skip_long or "context" not in str(error)
                    else " Or leave such texts out with --skip-long."
                )
                raise DataError(f"{row.path}:{row.line}: {error}{hint}") from None
            skipped += 1
    if not found:
        raise DataError(f"{', '.join(data)}: no text fits the context; {skipped} were left out.")
    return found, skipped


def _measure(
    model: Model, texts: Sequence[Reading], layers: list[str] | None, rows: int | None, out: Output
) -> list[HeadMeasures]:
    """Look along each text, one in memory at a time, and measure."""
    from regard.look.capture import capture
    from regard.look.corpus import measure_corpus
    from regard.look.reading import Look

    with _Progress(out, "looking") as progress:

        def looks() -> Iterator[Look]:
            for number, text in enumerate(texts):
                progress(number, len(texts))
                with capture(values=False) as kept:
                    text.run(model.module)
                yield Look(text.sides, kept.of(), holder=kept)

        return measure_corpus(looks(), layers=layers, rows=rows)


def _effects(
    model: Model, texts: Sequence[Reading], heads: Sequence[str], how: Literal["zero", "mean"], out: Output
) -> dict[tuple[str, int], Effect]:
    from regard.tasks.looking_effects import head_effects

    with _Progress(out, "switching heads off") as progress:
        found = head_effects(model.parts, texts, heads=heads, how=how, progress=progress)
    return {(one.layer, one.head): one for one in found}


def _show(
    model: str,
    data: Sequence[str],
    found: Sequence[HeadMeasures],
    effects: dict[tuple[str, int], Effect],
    sort: str,
    texts: int,
    skipped: int,
    out: Output,
) -> None:
    """Print a line for each head, and all measures under --json."""
    from regard.look.roles import roles

    told = roles(found)
    ordered = sorted(found, key=_order(sort, told, effects))
    rows = []
    for one in ordered:
        row: dict[str, Any] = {"head": f"{one.layer}.{one.head}"}
        row["role"] = ", ".join(map(str, told[one.layer, one.head]))
        if sort not in ("layer", "role", "effect"):
            row[sort] = one.values[sort].value if sort in one.values else None
        if effects:
            row["effect"] = _effect(effects.get((one.layer, one.head)))
        row["why"] = "; ".join(role.why for role in told[one.layer, one.head])
        rows.append(row)
    out.table(rows)
    left = f", {skipped} left out that are too long" if skipped else ""
    sampled = ", of each an even sample of rows" if any(one.sampled for one in found) else ""
    out.line(f"\n{texts} texts{left}{sampled}; evenly: what attention spread over the same keys would give.")
    if effects:
        out.line("effect: nats of loss that switching the head off adds, with its interval of 95 %.")
    out.result(
        {
            "model": model, "data": data, "texts": texts, "skipped": skipped,
            "heads": [
                {
                    "layer": one.layer, "head": one.head, "roles": told[one.layer, one.head],
                    "measures": one.values, "rows": one.rows, "sampled": one.sampled,
                    "effect": effects.get((one.layer, one.head)),
                }
                for one in ordered
            ],
        }
    )  # fmt: skip


def _order(
    sort: str, told: dict[tuple[str, int], list[Role]], effects: dict[tuple[str, int], Effect]
) -> Callable[[HeadMeasures], Any]:
    """Give the key of an order; layers stay as they ran."""

    def key(one: HeadMeasures) -> Any:
        name = one.layer, one.head
        if sort == "role":
            return told[name][0].score == 0, told[name][0].name, -told[name][0].score
        if sort == "effect":
            return -effects[name].change if name in effects else 0.0
        return 0 if sort == "layer" else -one.values[sort].value if sort in one.values else float("inf")

    return key


def _effect(one: Effect | None) -> str:
    return "-" if one is None else f"{one.change:+.4f} ({one.low:+.4f} to {one.high:+.4f})"


def _study(model: str, limit: int | None, device: str, out: Output) -> None:
    """Search the heads of a demo's model, and print what was found."""
    from dataclasses import asdict

    from regard import demo
    from regard.cli.heads_demo import show_study
    from regard.data.world import World
    from regard.demo_heads import study, telling, world_seed

    seed = world_seed(Path(model))
    if seed is None:
        raise ConfigError(f"{model} is no run of regard demo, so name data: a file of texts.")
    from regard.runs import load_parts

    recipe = demo.Recipe()
    world = World(seed, demo.SHAPES, recipe.scenes)
    valid = telling(world.examples("valid", limit or recipe.search))
    test = telling(world.examples("test", limit or recipe.test))
    if not (valid and test):
        raise ConfigError(f"--limit {limit}: these sentences hold no pronoun to measure; take more.")
    with _Progress(out, "") as progress:
        train = world.examples("train", 4000)
        found = study(load_parts(model, device=device), valid, test, train, report=progress.say)
    show_study(found, out)
    out.result({"model": model, "study": asdict(found)})


class _Progress:
    """Show on a terminal how far it is; elsewhere nothing."""

    def __init__(self, out: Output, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn(), console=console,
            disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self._row = self._bar.add_task(printable(what), total=None)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        self._bar.update(self._row, completed=done, total=total)

    def say(self, what: str, share: float | None) -> None:
        """Show what is going on, and how much of it is done where that is known."""
        self._bar.update(
            self._row, description=printable(what), completed=share or 0, total=None if share is None else 1
        )
