"""A server without a network: its application over a folder of tiny models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from tests.cli import verb_models
from tests.serve.browser import busy_server, opened, own_server, place, server  # noqa: F401
from tests.tasks.small import make_parts, save
from tests.tasks.talker import talker

from regard.serve.app import make_app
from regard.serve.house import Settings

FRAMED = "[CLS] {first} [SEP]"


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of models, a few for all verbs; nothing may be changed in it."""
    folder = tmp_path_factory.mktemp("models")
    save(make_parts("encoder-decoder", words="bpe"), folder / "translator")
    save(make_parts("decoder", words="bpe", context=128), folder / "writer")
    save(talker(), folder / "talker")
    save(verb_models.make("encoder", FRAMED, head="classify", labels=("good", "bad")), folder / "classifier")
    return folder


@pytest.fixture
def app(runs: Path, tmp_path: Path) -> FastAPI:
    """Give an application of its own home."""
    return make_app(Settings(runs=runs, home=tmp_path / "home"))


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """Give a client that asks it as the page does."""
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client
