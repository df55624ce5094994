"""`regard info`: what is in a run."""

from __future__ import annotations

from pathlib import Path

from regard.cli.show import Output
from regard.errors import ConfigError


def command(run: Path | None = None, /, *, presets: bool = False, json: bool = False) -> None:
    """Say what a run holds: model, tokenizer, data, training and scores; or list the presets.

    Parameters
    ----------
    run
        The run's folder.
    presets
        List the models that `regard train --model` knows.
    json
        Print one JSON object on standard output.
    """
    out = Output(json)
    if presets == (run is not None):
        raise ConfigError("name a run's folder, or give --presets.")
    if run is None:
        from regard.models.families import PRESETS, preset

        rows = []
        for name in PRESETS:
            config = preset(name)
            rows.append(
                {
                    "preset": name, "kind": config.kind, "weights": f"{config.num_parameters():,}",
                    "layers": config.num_layers, "width": config.width, "heads": config.num_heads,
                    "position": config.position,
                    "context": config.context,
                }
            )  # fmt: skip
        out.table(rows)
        out.result({"presets": rows})
        return
    from regard.runs import describe

    found = describe(run)
    for group, values in found.items():
        if values:
            out.line(f"{group}:")
            width = max(len(name) for name in values)
            for name, value in values.items():
                shown = (
                    f"{value:.6g}"
                    if isinstance(value, float)
                    else f"{value:,}"
                    if type(value) is int
                    else value
                )
                out.line(f"  {name:{width}}  {shown}")
    out.result({"run": run, **found})
