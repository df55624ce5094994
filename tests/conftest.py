"""Fixtures and settings for the whole suite: one thread, fixed seeds, and the shared data where it exists."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before torch or tokenizers is imported: the suite runs two workers on two cores, so each gets one thread.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import settings

# A test's speed is the machine's affair, and every run draws the same examples.
settings.register_profile("regard", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("regard")

REPO = Path(__file__).resolve().parents[1]
SERVER = REPO / "tests" / "serve"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def shared_folder() -> Path | None:
    """Find the folder of data sets at REGARD_SHARED or beside the repository; None where there is none."""
    named = os.environ.get("REGARD_SHARED")
    folder = Path(named) if named else REPO.parent / "shared"
    return folder if folder.is_dir() else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the page's server and what is shown in a browser, so that they can be run apart."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
        elif item.path.is_relative_to(SERVER):
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="session")
def repo() -> Path:
    """Give the repository's root."""
    return REPO


@pytest.fixture(scope="session")
def shared() -> Path:
    """Give the folder of data sets; a test that needs one which is not there is skipped by name."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("needs the data folder: set REGARD_SHARED or put it at ../shared")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeds() -> None:
    import torch

    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Give the machine's Chromium; what needs it is skipped by name where there is none."""
    found = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    if found is None:
        pytest.skip("needs Chromium")
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()
