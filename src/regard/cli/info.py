"""`regard info`: what is in a run or in a published model."""

from __future__ import annotations

from regard.cli.show import Output
from regard.errors import ConfigError


def command(
    run: str | None = None,
    /,
    *,
    presets: bool = False,
    revision: str | None = None,
    offline: bool | None = None,
    json: bool = False,
) -> None:
    """Say what a run holds (model, tokenizer, data, training, scores) or a published model; or list the presets.

    Parameters
    ----------
    run
        The folder of a run or of a published model, a file of weights, or a hub id (owner/name).
    revision
        Of a hub id: a branch, a tag or a commit.
    offline
        Look for a hub id in the cache only.
    presets
        List the models that `regard train --model` knows.
    json
        Print one JSON object on standard output.
    """
    out = Output(json)
    if presets == (run is not None):
        raise ConfigError("name a run's folder or a model, or give --presets.")
    if run is None:
        from regard.config_recurrent import RecurrentConfig
        from regard.models.families import PRESETS, preset

        rows = []
        for name in PRESETS:
            config = preset(name)
            rows.append(
                {
                    "preset": name, "kind": config.kind, "weights": f"{config.num_parameters():,}",
                    "layers": config.num_layers, "width": config.width,
                    "heads": "" if isinstance(config, RecurrentConfig) else config.num_heads,
                    "position": "" if isinstance(config, RecurrentConfig) else config.position,
                    "context": config.context,
                }
            )  # fmt: skip
        out.table(rows)
        out.result({"presets": rows})
        return
    from regard.runs import describe

    found = describe(run, revision=revision, offline=offline)
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
