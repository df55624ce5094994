"""The build of the front end: it runs where something is missing or older than what it is made of, and else never."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def hook(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Give the build's module over a small tree, in which all is built."""
    spec = importlib.util.spec_from_file_location("hatch_build", repo / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    web = tmp_path / "web"
    built = (tmp_path / "look.js", tmp_path / "page" / "index.html")
    for path in (web / "src" / "look.ts", web / "src" / "page" / "main.ts", web / "package.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (100, 100))
    for path in built:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        os.utime(path, (200, 200))
    monkeypatch.setattr(module, "WEB", web)
    monkeypatch.setattr(module, "BUILT", built)
    return module


def test_what_is_built_is_left_alone(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "run", lambda words: pytest.fail(f"ran {words}"))
    hook.build()


@pytest.mark.parametrize("which", [0, 1])
def test_either_output_that_is_missing_or_old_is_built(hook: ModuleType, which: int) -> None:
    path = hook.BUILT[which]
    os.utime(path, (50, 50))
    assert not hook.is_fresh()
    path.unlink()
    assert not hook.is_fresh()


@pytest.mark.parametrize("name", ["src/look.ts", "src/page/main.ts", "package.json"])
def test_every_source_counts(hook: ModuleType, name: str) -> None:
    os.utime(hook.WEB / name, (300, 300))
    assert not hook.is_fresh()


def test_without_sources_what_was_handed_on_is_used(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hook, "WEB", tmp_path / "none")
    assert hook.is_fresh()


def test_both_outputs_go_into_the_wheel_and_not_into_the_repository(repo: Path, hook: ModuleType) -> None:
    data: dict[str, list[str]] = {"artifacts": []}
    hook.CustomBuildHook.initialize(object(), "standard", data)
    ignored = (repo / ".gitignore").read_text().splitlines()
    for folder in ("src/regard/look/draw/assets/", "src/regard/serve/page/"):
        assert any(pattern.startswith(folder) for pattern in data["artifacts"])
        assert folder in ignored
    script = json.loads((repo / "web" / "package.json").read_text())["scripts"]["build"]
    assert script.count("vite build") == 2
