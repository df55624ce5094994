"""Show a look in a notebook: the component of the page, live in a cell; in an exported notebook the page itself.

What was captured goes to the browser as bytes, which no protocol between them rewrites or refuses, whatever
is in a text.
"""

from __future__ import annotations

import html as markup
import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from regard.errors import DependencyError
from regard.look.draw.html import component, page
from regard.look.draw.payload import Pyramids, payload

if TYPE_CHECKING:
    from regard.look.reading import Look

__all__ = ["LookWidget", "mime_bundle"]

MOST_SHOWN = 128 * 2**20  # bytes that a look sends by itself, when it is the last value of a cell
MOST_SAVED = 3 * 2**20  # bytes of markup that a cell leaves in the notebook's file

_HEIGHT = 820  # of the page in an exported notebook, in pixels


class LookWidget(anywidget.AnyWidget):
    """Show a look in a notebook, with the whole interaction; the arguments are those of `payload`.

    Attributes:
        payload: what the browser knows of the look, as JSON.

    Raises:
        ConfigError: no such layer or head.
        DependencyError: the component was not built.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    payload = traitlets.Bytes().tag(sync=True)

    def __init__(
        self, look: Look, *, layers: Collection[str] | None = None, heads: Collection[int] | None = None,
        title: str | None = None, pyramids: Pyramids = True,
    ) -> None:  # fmt: skip
        data = payload(look, layers=layers, heads=heads, title=title, pyramids=pyramids)
        # Characters beyond ASCII are escaped: half of a surrogate pair, which a text may hold, has no bytes.
        body = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        self._said = repr(look)
        super().__init__(_esm=component(), payload=body.encode("ascii"))

    def __repr__(self) -> str:
        return self._said

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[Any, Any], dict[Any, Any]]:
        """Give the widget, and for whoever has no kernel the page, where a notebook's file may hold it; no metadata."""
        bundle: dict[str, Any] = {
            "text/plain": repr(self),
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.model_id,
            },
        }
        if len(self.payload) + len(self._esm) <= MOST_SAVED:
            bundle |= _framed(json.loads(self.payload))
        return bundle, {}


def mime_bundle(look: Look) -> dict[str, Any]:
    """Give a look as a notebook shows the last value of a cell: as a widget, as a page, or else as a line of text.

    A long text's map is sampled here, since its exact picture walks over all weights of all heads; a look that would be
    too much to send is not sent. `LookWidget` does either where it is asked to.
    """
    size = sum(
        (layer.query.numel() + layer.key.numel()) * min(4, layer.query.element_size())
        for layer in look.layers.values()
    )
    if size > MOST_SHOWN:
        return {
            "text/plain": f"{look!r}\nIt is too large to be shown whole ({size / 2**20:,.0f} MB); choose layers: "
            "regard.look.draw.widget.LookWidget(look, layers=[...])."
        }
    try:
        return LookWidget(look, pyramids=False)._repr_mimebundle_()[0]
    except DependencyError as error:
        return {"text/plain": f"{look!r}\n{error}"}


def _framed(data: dict[str, Any]) -> dict[str, str]:
    """Put the page into a frame that may run its script and nothing else; nothing where it is too large."""
    frame = (
        f'<iframe sandbox="allow-scripts" srcdoc="{markup.escape(page(data))}" '
        f'style="width:100%;height:{_HEIGHT}px;border:0" title="attention"></iframe>'
    )
    return {"text/html": frame} if len(frame) <= MOST_SAVED else {}
