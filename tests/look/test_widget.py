"""A look in a notebook: what it sends, what it leaves in a file, and the whole of it in JupyterLab."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("anywidget", reason="needs anywidget")

from tests.look.pictures import hostile_look, look_at

from regard.errors import ConfigError
from regard.look.draw import html as pages
from regard.look.draw import payload as packed
from regard.look.draw import widget as module
from regard.look.draw.widget import LookWidget, mime_bundle

VIEW = "application/vnd.jupyter.widget-view+json"
HAS_WEIGHT = "root => root.querySelector('.rg-weight')?.dataset.weight !== undefined"


def test_the_widget_holds_the_payload_and_the_component() -> None:
    look = look_at("encoder-decoder")
    last = list(look.layers)[-1]
    shown = LookWidget(look, layers=[last], heads=[1], title="Chosen")
    assert json.loads(shown.payload) == packed.payload(look, layers=[last], heads=[1], title="Chosen")
    assert shown._esm == pages.component() and "default" in shown._esm[-200:]
    state = shown.get_state()
    assert isinstance(state["payload"], bytes) and state["_esm"] == shown._esm
    assert repr(shown) == repr(look)
    with pytest.raises(ConfigError, match="heads 0 to"):
        LookWidget(look, heads=[99])


def test_hostile_words_travel_as_bytes() -> None:
    look = hostile_look()
    shown = LookWidget(look)
    shown.payload.decode("ascii")
    assert json.loads(shown.payload)["sides"] == packed.payload(look)["sides"]


def test_a_look_is_a_widget_and_for_a_file_a_page() -> None:
    look = look_at("encoder")
    bundle = look._repr_mimebundle_(include=None, exclude=None)
    assert set(bundle) == {"text/plain", "text/html", VIEW}
    assert bundle["text/plain"] == repr(look)
    assert bundle["text/html"].startswith('<iframe sandbox="allow-scripts" srcdoc="&lt;!doctype html&gt;')
    assert bundle["text/html"].count("<") == 2
    hostile = mime_bundle(hostile_look())["text/html"]
    assert hostile.count("<") == 2 and hostile.count('"') == bundle["text/html"].count('"')


def test_a_file_gets_no_page_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    look = look_at("encoder")
    sizes = len(LookWidget(look).payload) + len(pages.component())
    for most in (sizes - 1, sizes + 1):  # more is in a page than its data and its script
        monkeypatch.setattr(module, "MOST_SAVED", most)
        assert set(mime_bundle(look)) == {"text/plain", VIEW}


def test_a_look_that_is_too_large_says_how_to_show_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SHOWN", 10)
    bundle = mime_bundle(look_at("encoder"))
    assert set(bundle) == {"text/plain"} and "layers=[...]" in bundle["text/plain"]


def test_a_look_without_the_component_says_how_to_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(pages, "ASSET", tmp_path / "missing.js")
    bundle = mime_bundle(look_at("encoder"))
    assert set(bundle) == {"text/plain"} and "make web" in bundle["text/plain"]


def test_a_notebooks_file_shows_the_page_by_itself(browser: Any, tmp_path: Path) -> None:
    look = look_at("encoder")
    saved = tmp_path / "exported.html"
    saved.write_text(f"<!doctype html><body>{mime_bundle(look)['text/html']}</body>", encoding="utf-8")
    context = browser.new_context(offline=True)
    tab = context.new_page()
    said: list[str] = []
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(saved.as_uri())
    frame = next(frame for frame in tab.frames if frame.parent_frame)
    frame.wait_for_selector('[data-ready="true"]')
    root = frame.wait_for_selector(".rg-look")
    until(tab, lambda: root.evaluate(HAS_WEIGHT))
    place, weight = readout(root)
    expected = look.weights(0, 0, words=True).values.numpy()
    assert weight == pytest.approx(float(expected[place]), abs=2e-6)
    assert not said
    context.close()


def until(tab: Any, holds: Any, seconds: float = 60) -> None:
    """Wait until something holds, asked from outside."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        tab.wait_for_timeout(50)


def readout(root: Any) -> tuple[tuple[int, int], float]:
    """Read which weight is pointed at, by row and column, and what is said of it."""
    row, column, weight = root.evaluate(
        "root => { const at = root.querySelector('.rg-readout').dataset;"
        " return [at.row, at.column, root.querySelector('.rg-weight').dataset.weight].map(Number); }"
    )
    return (int(row), int(column)), weight


CELLS = [
    "import json, pathlib\n"
    "from tests.look.pictures import hostile_look, look_at\n"
    "look = look_at('encoder')\n"
    "shown = look.weights(0, 0, words=True).values.tolist()\n"
    "pathlib.Path('weights.json').write_text(json.dumps(shown))\n"
    "look",
    "hostile_look()",
]


def write_notebook(path: Path) -> None:
    cells = [
        {"cell_type": "code", "id": f"cell-{k}", "metadata": {}, "execution_count": None, "outputs": [], "source": text}
        for k, text in enumerate(CELLS)
    ]  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook), encoding="utf-8")


@pytest.fixture
def lab(tmp_path: Path, repo: Path) -> Iterator[str]:
    """Give the address of a JupyterLab of this machine alone, in a folder with one notebook; stop it in the end."""
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip("needs JupyterLab")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write_notebook(folder / "look.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    own = {name: str(tmp_path / name.lower()) for name in
           ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")}  # fmt: skip
    path = os.pathsep.join([str(repo), str(repo / "src")])
    environment = {**os.environ, **own, "JUPYTER_TOKEN": token, "PYTHONPATH": path}
    words = [
        "--no-browser", f"--port={port}", "--ip=127.0.0.1", "--allow-root", f"--ServerApp.root_dir={folder}",
        "--ServerApp.port_retries=0", "--LabApp.extension_manager=readonly",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *words], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while not answers(f"{address}/api/status?token={token}"):
            said = (tmp_path / "server.log").read_text(errors="replace")[-3000:]
            assert server.poll() is None and time.monotonic() < deadline, said
            time.sleep(0.2)
        yield f"{address}/lab/tree/look.ipynb?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def has_begun(tab: Any) -> bool:
    """Tell whether the cells run; else run all, since JupyterLab forgets what came before its kernel."""
    if tab.locator(".jp-CodeCell .jp-InputPrompt").first.inner_text().strip("[]: \xa0\n"):
        return True
    tab.get_by_role("menuitem", name="Run", exact=True).click()
    tab.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    tab.wait_for_timeout(3000)
    return False


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_widget_runs_in_jupyterlab(browser: Any, lab: str, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(90_000)
    tab = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("websocket", lambda opened: asked.append(opened.url))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    tab.goto(lab)
    tab.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    until(tab, lambda: any("/api/kernels/" in url for url in asked if url.startswith("ws:")), 90)
    tab.get_by_text("| Idle").wait_for()
    until(tab, lambda: has_begun(tab), 90)

    first = tab.wait_for_selector(".rg-look >> nth=0")
    tab.wait_for_selector(".rg-above")
    first.scroll_into_view_if_needed()
    until(tab, lambda: first.evaluate(HAS_WEIGHT))
    expected = np.array(json.loads((tmp_path / "notebooks" / "weights.json").read_text()))
    seen = set()
    for x in (0.4, 0.5, 0.6, 0.7):
        for y in (0.1, 0.2, 0.3, 0.4):
            box = first.query_selector(".rg-above").bounding_box()
            tab.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
            tab.wait_for_timeout(50)
            place, weight = readout(first)
            assert weight == pytest.approx(float(expected[place]), abs=2e-6)
            seen.add(place)
    assert len(seen) > 6

    second = tab.wait_for_selector(".rg-look:has-text('<b>model</b>')")
    assert second.query_selector(".rg-model").inner_text() == "<b>model</b>"
    assert second.query_selector("script, img, b") is None
    others = [url for url in asked if not url.startswith(("blob:", "data:"))]
    port = lab.split(":")[2].partition("/")[0]
    assert not [url for url in others if url.split("/")[2] != f"127.0.0.1:{port}"]
    assert others and not said
    context.close()
