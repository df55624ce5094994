"""A claim's page: verdict, figure, its numbers in a table, and how it was done; one file that makes no request."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

from regard.lab.statistics import number

__all__ = ["page"]

_STYLE = """
:root{color-scheme:light dark;--ground:#fff;--text:#1e2229;--quiet:#5f6670;--line:#dcd8ce}
@media(prefers-color-scheme:dark){:root{--ground:#14171c;--text:#ebe8e0;--quiet:#9aa2ad;--line:#363d48}}
body{background:var(--ground);color:var(--text);font:16px/1.55 system-ui,sans-serif;max-width:66rem;margin:0 auto;
padding:1.5rem}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.1rem;margin:1.8rem 0 .4rem}
.quiet{color:var(--quiet)}.verdict{font-size:1.15rem;border-left:4px solid;padding-left:.8rem}
figure{margin:1rem 0}svg{max-width:100%;height:auto}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:0 0 1.2rem;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px solid var(--line)}td.n,th.n{text-align:right}
dt{font-weight:600;margin-top:.6rem}dd{margin:0}code,pre{font-family:ui-monospace,monospace;font-size:.92em}
pre{overflow-x:auto}caption{text-align:left;font-weight:600;padding:.3rem 0}
"""


def page(result: Mapping[str, Any], figure: str) -> str:
    """Write the page of a result, whose figure is `figure`, an SVG."""
    text = html.escape
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    note = (
        '<p class="quiet">Size smoke: a trial of the machinery whose numbers mean nothing.</p>'
        if result["size"] == "smoke"
        else ""
    )
    interval = result["interval"]
    ends = "" if interval is None else f" [{number(interval[0], 4)}, {number(interval[1], 4)}]"
    again = "gives the same numbers" if result["repeats"] else "gives other times, near these"
    told = [
        ("What people are told", result["said"]),
        ("What would refute it", result["refuted_by"]),
        ("Method", result["method"]),
        ("What is equal", result["fair"]),
        ("How the settings were found", result["tuning"]),
    ]
    about = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in told)
    machine = result["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, {result['threads']} threads"
    made = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    settings = json.dumps(result["settings"], ensure_ascii=False)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(result["id"])}: {text(result["title"])}</title><style>{_STYLE}</style></head>
<body><main>
<p class="quiet">{text(result["id"])}: {text(result["title"])}</p>
<h1>{text(result["question"])}</h1>{note}
<p class="verdict">{text(result["verdict"])}</p>
<figure>{figure}<figcaption class="quiet">{text(result["figure"]["caption"])} Bars: {text(result["interval_of"])}
({len(result["seeds"])} {"seed" if len(result["seeds"]) == 1 else "seeds"}).</figcaption></figure>
<p>Effect: {number(result["effect"], 4)}{ends}, {text(result["effect_of"])}.</p>
<h2>The numbers of the figure</h2>
{_tables(result["figure"])}
<h2>How it was done</h2>
<dl>{about}</dl>
<h2>Run it again</h2>
<pre><code>{text(result["command"])}</code></pre>
<p class="quiet">On the same machine it {again}. Measured on {text(where)}; {text(made)}; commit
{text(str(result["commit"]))}; {sum(result["seconds"]):,.0f} s in all. Settings: <code>{text(settings)}</code></p>
</main></body></html>
"""


def _tables(figure: Mapping[str, Any]) -> str:
    """Write a table for each panel: a row for each x, a column for each series."""
    parts = []
    for panel in figure["panels"]:
        places = list(dict.fromkeys(x for series in panel["series"] for x in series["x"]))
        head = "".join(f'<th class="n" scope="col">{html.escape(s["name"])}</th>' for s in panel["series"])
        rows = "".join(
            f'<tr><th scope="row">{html.escape(x if isinstance(x, str) else f"{x:,g}")}</th>'
            + "".join(f'<td class="n">{_cell(series, x)}</td>' for series in panel["series"])
            + "</tr>"
            for x in places
        )
        parts.append(
            f'<div class="wide"><table><caption>{html.escape(panel["title"])}: {html.escape(panel["y"])}</caption>'
            f'<thead><tr><th scope="col">{html.escape(panel["x"])}</th>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
    return "\n".join(parts)


def _cell(series: Mapping[str, Any], x: float | str) -> str:
    for place, point in zip(series["x"], series["points"], strict=True):
        if place == x:
            shown = number(point["mean"], 4)
            if point["low"] is not None and point["low"] != point["high"]:
                shown += f" [{number(point['low'], 4)}, {number(point['high'], 4)}]"
            return shown
    return "–"
