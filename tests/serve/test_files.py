from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from tests.serve.near import serving, until

from regard.serve.files import data_file
from regard.serve.house import Missing, Settings

MOST = 100_000
BAD = ["../a", "a/b", "..", ".", ".hidden", "a\\b", "a\nb", "a\u202eb", "\u200bx", " a", "a" * 201, "é" * 101]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "given.txt").write_text("given")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "data" / "out.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "data" / "in.txt").symlink_to("given.txt")
    return Settings(runs=tmp_path / "runs", home=tmp_path / "home", data=tmp_path / "data", most_upload=MOST)


def test_a_file_that_was_sent_is_listed_and_removed(settings: Settings) -> None:
    body = bytes(range(256)) * 300
    with serving(settings) as client:
        sent = client.put("/api/files", params={"name": "größe <b>.tsv"}, content=body)
        assert sent.json() == {"name": "größe <b>.tsv", "bytes": len(body)}
        assert (settings.uploads / "größe <b>.tsv").read_bytes() == body
        client.put("/api/files", params={"name": "größe <b>.tsv"}, content=b"new")
        told = client.get("/api/files").json()
        assert told["most"] == MOST
        found = {(one["name"], one["folder"], one["bytes"]) for one in told["files"]}
        # A link to a file of the same folder is one; a link out of it is none.
        assert found == {("größe <b>.tsv", "uploads", 3), ("given.txt", "data", 5), ("in.txt", "data", 5)}
        assert data_file(settings, "größe <b>.tsv").read_bytes() == b"new"
        assert client.delete("/api/files", params={"name": "größe <b>.tsv"}).status_code == 200
        assert client.delete("/api/files", params={"name": "größe <b>.tsv"}).status_code == 404
        assert client.delete("/api/files", params={"name": "given.txt"}).status_code == 404
    assert (settings.data or Path()).joinpath("given.txt").is_file()
    assert list(settings.uploads.iterdir()) == []


def test_a_name_is_one_safe_segment(settings: Settings) -> None:
    settings.uploads.mkdir(parents=True)
    (settings.home / "a").write_text("not below uploads")
    with serving(settings) as client:
        for name in BAD:
            refused = client.put("/api/files", params={"name": name}, content=b"x")
            assert refused.status_code == 422 and "name" in refused.json()["error"], name
            assert client.delete("/api/files", params={"name": name}).status_code == 404, name
            with pytest.raises(Missing):
                data_file(settings, name)
        assert client.put("/api/files", params={"name": ""}, content=b"x").status_code == 422
        assert client.put("/api/files", content=b"x").status_code == 422
    with pytest.raises(Missing):
        data_file(settings, "out.txt")
    assert data_file(settings, "in.txt").read_text() == "given"
    assert list(settings.uploads.iterdir()) == []


def test_a_file_that_is_too_large_is_refused_before_and_while_it_is_read(settings: Settings) -> None:
    def endless() -> object:
        for _ in range(1000):
            yield b"x" * 1000

    with serving(settings) as client:
        assert client.put("/api/files", params={"name": "a"}, content=b"x" * (MOST + 1)).status_code == 413
        assert not settings.uploads.exists()  # refused by its length alone
        chunked = httpx2.Client(base_url=client.base_url, timeout=60, trust_env=False)
        with chunked:
            try:
                status = chunked.put("/api/files", params={"name": "b"}, content=endless()).status_code  # type: ignore[arg-type]
            except httpx2.WriteError:  # it was refused while we still wrote
                status = 413
        assert status == 413
        assert client.put("/api/files", params={"name": "c"}, content=b"x" * MOST).status_code == 200
        until(lambda: [one.name for one in settings.uploads.iterdir()] == ["c"])


def test_a_client_that_leaves_leaves_nothing_behind(settings: Settings) -> None:
    with serving(settings) as client:
        place = urlsplit(str(client.base_url))
        assert place.hostname is not None and place.port is not None
        with socket.create_connection((place.hostname, place.port)) as connection:
            head = (
                f"PUT /api/files?name=gone HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 50000\r\n\r\n"
            )
            connection.sendall(head.encode() + b"x" * 20_000)
            until(lambda: settings.uploads.is_dir() and any(settings.uploads.iterdir()))
        until(lambda: not any(settings.uploads.iterdir()))
        assert client.get("/health").status_code == 200


def test_where_nothing_can_be_written_it_says_so(settings: Settings) -> None:
    settings.home.mkdir()
    with serving(settings) as client:
        settings.uploads.write_text("a file where the folder should be")
        refused = client.put("/api/files", params={"name": "a"}, content=b"x")
        assert refused.status_code == 507 and "can't be kept" in refused.json()["error"]
        assert client.get("/api/files").status_code == 200
