"""Fixtures and settings for the whole suite: one thread, fixed seeds, and the shared data where it exists."""

from __future__ import annotations

import os
import random
from pathlib import Path

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


def shared_folder() -> Path | None:
    """Find the folder of data sets at REGARD_SHARED or beside the repository; None where there is none."""
    named = os.environ.get("REGARD_SHARED")
    folder = Path(named) if named else REPO.parent / "shared"
    return folder if folder.is_dir() else None


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
