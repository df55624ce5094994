"""Where a model comes from: paths are never ids, the cache is enough when offline, and nothing that runs is fetched."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from regard.checkpoints.files import save_tensors
from regard.checkpoints.hub import Place, locate
from regard.checkpoints.shards import Weights
from regard.errors import CheckpointError, ConfigError

REPO = Path(__file__).resolve().parents[2]
COMMIT, OLDER = "c" * 40, "0" * 40


def message(where, kind=CheckpointError, **settings):
    with pytest.raises(kind) as caught:
        locate(where, **settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in an empty folder, with an empty cache of the hub in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def no_hub(monkeypatch):
    """Fail where the hub is asked."""

    def never(*_, **__):
        raise AssertionError("a path was taken to the hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", never)
    monkeypatch.setattr("huggingface_hub.HfApi", never)


def cached(root, name, files, commit=COMMIT, branch="main"):
    """Write a repository as the hub's cache keeps it: blobs, and a snapshot of links to them."""
    folder = root / "cache" / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for part in (folder / "refs", folder / "blobs", snapshot):
        part.mkdir(parents=True, exist_ok=True)
    (folder / "refs" / branch).write_text(commit)
    for file, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / file).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


def weights_bytes(folder):
    save_tensors(folder / "scratch", {"a": torch.arange(3.0)})
    content = (folder / "scratch").read_bytes()
    (folder / "scratch").unlink()
    return content


# Paths


def test_what_is_here_is_taken_as_it_is(here, no_hub):
    for name in ("gpt2", "owner/name", "runs/a/b"):
        (here / name).mkdir(parents=True)
        assert locate(name) == Place(Path(name))
    save_tensors(here / "gpt2" / "model.safetensors", {"a": torch.ones(1)})
    file = Path("gpt2/model.safetensors")
    assert locate(file) == locate(str(file)) == Place(Path("gpt2"), file)
    assert locate(file).weights == file
    assert locate("gpt2", offline=True).weights == Path("gpt2")


@pytest.mark.parametrize(
    "where",
    ["./owner/name", "../name", "~/name", "/name", "a/b/c", "name/", "model.safetensors", "owner\\name", "x/y.bin",
     ".hidden", Path("owner/name")],
)  # fmt: skip
def test_what_looks_like_a_path_never_reaches_the_hub(here, no_hub, monkeypatch, where):
    monkeypatch.setenv("HOME", str(here))
    assert "doesn't exist" in message(where)


def test_the_home_folder_is_found(here, no_hub, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    (here / "mine").mkdir()
    assert locate("~/mine") == Place(here / "mine")
    assert "can't be looked at" in message("~nobody-of-that-name/mine")


@pytest.mark.parametrize(
    "where",
    ["", "a b", "-x", "a--b", "a..b", "x.git", "owner/", "ünder", "a" * 97, "a\nb", "a\0b", "a" * 5000],
)
def test_what_is_neither_path_nor_id_is_refused(here, no_hub, where):
    assert len(message(where)) < 400


def test_a_neighbour_is_named(here):
    (here / "runs" / "generate-1").mkdir(parents=True)
    (here / "runs" / "generate-1" / "config.json").write_text("{}")
    save_tensors(here / "weights.safetensors", {"a": torch.ones(1)})
    hint = "did you mean the folder 'runs/generate-1'?"
    assert hint in message("runs/generate-2", offline=True)
    assert hint in message("./runs/generate-2")
    assert "did you mean the file 'weights.safetensors'?" in message("wieghts.safetensors")
    assert "did you mean" not in message("other", offline=True)


def test_a_file_that_is_no_weights_is_refused(here):
    (here / "pytorch_model.bin").write_bytes(b"\x80\x02")
    (here / "notes.txt").write_text("hello")
    assert "is a pickle" in message("pytorch_model.bin")
    assert "no safetensors file" in message("notes.txt")


def test_a_revision_is_for_the_hub(here):
    assert "is for a hub id" in message(here, ConfigError, revision="main")
    for revision in ("../../x", "a b", "/x", "", "a/../b", "x\n"):
        assert "no branch, tag or commit" in message(
            "owner/name", ConfigError, revision=revision, offline=True
        )


# The cache


def test_a_cached_repository_is_found_offline(here):
    snapshot = cached(here, "owner/name", {"config.json": b"{}", "model.safetensors": weights_bytes(here)})
    place = locate("owner/name", offline=True)
    assert place == Place(snapshot, None, "owner/name", COMMIT)
    assert torch.equal(Weights(place.weights).tensor("a"), torch.arange(3.0))


def test_the_environment_says_offline(here, monkeypatch):
    cached(here, "gpt2", {"model.safetensors": weights_bytes(here)})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert locate("gpt2").revision == COMMIT
    assert "is not in the hub's cache, and this is offline" in message("gpt3")
    # Asked to go online all the same, the library doesn't: the message says why.
    assert locate("gpt2", offline=False).revision == COMMIT
    assert "HF_HUB_OFFLINE is set" in message("gpt3", offline=False)


def test_a_revision_is_a_branch_or_a_commit(here):
    older = cached(here, "gpt2", {"model.safetensors": weights_bytes(here)}, OLDER, "v1")
    cached(here, "gpt2", {"model.safetensors": weights_bytes(here)})
    for revision in ("v1", OLDER):
        assert locate("gpt2", revision=revision, offline=True) == Place(older, None, "gpt2", OLDER)
    assert locate("gpt2", offline=True).revision == COMMIT
    assert "gpt2 at revision 'v2' is not in the hub's cache" in message("gpt2", revision="v2", offline=True)


def test_a_cache_without_weights_says_what_happened(here):
    cached(here, "owner/half", {"config.json": b"{}"})
    assert "without its weights, as after a download that was interrupted" in message(
        "owner/half", offline=True
    )
    cached(here, "owner/old", {"config.json": b"{}", "pytorch_model.bin": b"\x80\x02"})
    text = message("owner/old", offline=True)
    assert "as a pickle only (pytorch_model.bin)" in text
    assert "weights_only=True" in text


# A hub on this machine


class Hub(BaseHTTPRequestHandler):
    """Answer as the hub does, for the few requests that a download makes."""

    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}
    asked: ClassVar[list[str]] = []
    ranges: ClassVar[list[str]] = []
    cuts: ClassVar[int] = 0  # how many answers with weights of owner/cut end half way
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        parts = self.path.split("?")[0].strip("/").split("/")
        self.asked.append(self.path)
        if parts[:2] == ["api", "models"]:
            name = "/".join(parts[2:4])
            if name == "owner/gated":
                return self.refuse(403, "GatedRepo")
            if name == "owner/busy":
                return self.refuse(503, "")
            if name not in self.repositories:
                return self.refuse(404, "RepoNotFound")
            if parts[4:] not in ([], ["revision", "main"], ["revision", COMMIT]):
                return self.refuse(404, "RevisionNotFound")
            files = [{"rfilename": file} for file in self.repositories[name]]
            return self.answer(json.dumps({"id": name, "sha": COMMIT, "siblings": files}).encode())
        name, file = "/".join(parts[:2]), "/".join(parts[4:])
        cut = name == "owner/cut" and self.command == "GET" and Hub.cuts > 0
        Hub.cuts -= cut
        return self.answer(self.repositories[name][file], cut)

    def do_HEAD(self):
        self.do_GET()

    def answer(self, content, cut=False):
        span = self.headers.get("Range")
        etag = hashlib.sha256(content).hexdigest()
        if span is not None:
            self.ranges.append(span)
            content = content[int(span.removeprefix("bytes=").rstrip("-")) :]
        self.send_response(200 if span is None else 206)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = cut

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Stay silent."""


@contextmanager
def hub(repositories):
    Hub.repositories, Hub.asked, Hub.ranges, Hub.cuts = repositories, [], [], 1
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


CHILD = """
import json, sys
from regard.checkpoints.hub import locate
from regard.errors import RegardError
for where, revision in json.load(sys.stdin):
    try:
        place = locate(where, revision=revision)
        print(json.dumps([str(place.folder), place.id, place.revision]))
    except RegardError as error:
        print(json.dumps(str(error)))
assert "torch" not in sys.modules
"""


def ask(endpoint, cache, *wanted):
    """Locate ids in a process of its own, as the library reads the hub's address when it is imported."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {
        "PYTHONPATH": str(REPO / "src"), "HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
    environment.pop("HF_HUB_CACHE", None)
    questions = json.dumps([(w, None) if isinstance(w, str) else w for w in wanted])
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=questions, env=environment, cwd=cache, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_only_what_a_model_needs_is_fetched(tmp_path):
    whole = weights_bytes(tmp_path)
    settings = {"config.json": b"{}", "tokenizer.json": b"{} ", "vocab.json": b"{}  ", "spiece.model": b"s",
                "1_Pooling/config.json": b"{ }"}  # fmt: skip
    unsafe = {"pytorch_model.bin": b"p", "modeling_x.py": b"import os", "onnx/model.safetensors": b"o",
              "training_args.bin": b"t", "README.md": b"r"}  # fmt: skip
    one = {**settings, **unsafe, "model.safetensors": whole, "model.fp16.safetensors": b"f"}
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    many = {
        "model.safetensors.index.json": json.dumps(index).encode(), "model-00001-of-00001.safetensors": whole,
        "consolidated.safetensors": b"twice", "config.json": b"{}",
    }  # fmt: skip
    other = {"adapter.safetensors": whole, "pytorch_model.bin": b"p"}
    with hub({"owner/one": one, "owner/many": many, "owner/other": other}) as endpoint:
        found = ask(endpoint, tmp_path, "owner/one", ("owner/many", COMMIT), ("owner/other", "main"))
        asked = list(Hub.asked)
        again = ask(
            "http://127.0.0.1:1", tmp_path, "owner/one", "owner/many"
        )  # no network: the cache will do
    names = []
    for (folder, name, revision), wanted in zip(
        found, ("owner/one", "owner/many", "owner/other"), strict=True
    ):
        assert (name, revision) == (wanted, COMMIT)
        root = Path(folder)
        assert torch.equal(Weights(root).tensor("a"), torch.arange(3.0))
        names.append({str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()})
    assert names[0] == {*settings, "model.safetensors"}
    assert names[1] == set(many) - {"consolidated.safetensors"}
    assert names[2] == {"adapter.safetensors"}
    assert not [path for path in asked if path.endswith((".bin", ".py", ".md", "consolidated.safetensors"))]
    assert again[0] == found[0]
    # It was fetched by its commit, so what `main` means isn't known without the hub.
    assert "owner/many is not on this disk and the hub can't be reached" in again[1]


def test_each_refusal_of_the_hub_is_one_line_that_says_what_to_do(tmp_path):
    (tmp_path / "owner" / "names").mkdir(parents=True)
    (tmp_path / "owner" / "names" / "config.json").write_text("{}")
    repositories = {
        "owner/old": {"pytorch_model.bin": b"p", "optimizer.pt": b"p"}, "owner/none": {"README.md": b"r"},
        "owner/cut": {"model.safetensors": bytes(22 * 2**20)}, "owner/good": {"model.safetensors": b""},
    }  # fmt: skip
    ids = [
        "owner/name",
        "owner/gated",
        "owner/old",
        "owner/none",
        "owner/cut",
        "owner/busy",
        ("owner/good", "v9"),
    ]
    with hub(repositories) as endpoint:
        missing, gated, old, none, cut, busy, revision = texts = ask(endpoint, tmp_path, *ids)
        assert not [path for path in Hub.asked if path.endswith((".bin", ".pt"))]
        ((folder, *_),) = ask(endpoint, tmp_path, "owner/cut")  # called again, it goes on where it stopped
        assert len(Hub.ranges) == 1 and Hub.ranges != ["bytes=0-"]
        assert (Path(folder) / "model.safetensors").read_bytes() == bytes(22 * 2**20)
    assert all(isinstance(text, str) and "\n" not in text and len(text) < 400 for text in texts), texts
    assert "no repository owner/name on the hub" in missing
    assert "did you mean the folder 'owner/names'?" in missing
    assert "is gated: ask for access" in gated
    assert "hf auth login" in gated
    assert "as a pickle only (pytorch_model.bin)" in old
    assert "convert it once" in old
    assert "has no model.safetensors" in none
    assert "the download of owner/cut was interrupted" in cut
    assert "call it again" in cut
    assert "the hub can't be reached (status 503)" in busy
    assert "owner/good has no revision 'v9'" in revision


def test_without_a_network_the_message_says_so(tmp_path):
    (text,) = ask("http://127.0.0.1:1", tmp_path, "owner/name")
    assert text == (
        "owner/name is not on this disk and the hub can't be reached (ConnectionError); try again when it can."
    )
