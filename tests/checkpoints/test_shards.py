"""Weights: one file or many shards, read a tensor at a time, with an index that is checked against them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from regard.checkpoints import shards
from regard.checkpoints.files import load_tensors, save_tensors
from regard.checkpoints.shards import Weights
from regard.errors import CheckpointError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n"
INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def tensors():
    return {
        "embedding.weight": torch.arange(12.0).reshape(4, 3),
        "layer.weight": torch.randn(3, 3).to(torch.bfloat16),
        "layer.count": torch.tensor(7),
        "norm.weight": torch.ones(3, dtype=torch.float16),
    }


def write_index(folder, table, **metadata):
    (folder / INDEX).write_text(json.dumps({"metadata": metadata, "weight_map": table}))
    return folder


def sharded(folder, **metadata):
    """Write the tensors as two shards and their index."""
    folder.mkdir(exist_ok=True)
    parts = {FIRST: ["embedding.weight", "layer.count"], SECOND: ["layer.weight", "norm.weight"]}
    given = tensors()
    for file, names in parts.items():
        save_tensors(folder / file, {name: given[name] for name in names})
    return write_index(folder, {name: file for file, names in parts.items() for name in names}, **metadata)


def message(where):
    with pytest.raises(CheckpointError) as caught:
        Weights(where)
    text = str(caught.value)
    assert "\n" not in text
    assert str(where) in text
    return text


def open_files():
    return {Path(line.split()[-1]).name for line in Path("/proc/self/maps").read_text().splitlines()}


# What is read


@pytest.mark.parametrize("layout", ["model", "other", "file", "shards", "index"])
def test_every_layout_gives_the_same_tensors(tmp_path, layout):
    given, where = tensors(), tmp_path
    if layout in ("shards", "index"):
        torch.manual_seed(0)
        sharded(tmp_path, total_size=80)  # 48 + 18 + 8 + 6 bytes
        torch.manual_seed(0)
        given = tensors()
        where = tmp_path / INDEX if layout == "index" else tmp_path
    else:
        file = tmp_path / ("model.safetensors" if layout == "model" else "weights.safetensors")
        save_tensors(file, given)
        (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02never read")
        where = file if layout == "file" else tmp_path
    with Weights(str(where)) as weights:
        assert set(weights.names()) == given.keys()
        assert len(weights) == 4
        assert weights.num_bytes == 80
        assert len(weights.files) == (2 if layout in ("shards", "index") else 1)
        for name, tensor in given.items():
            assert name in weights
            assert weights.shape(name) == tuple(tensor.shape)
            assert weights.dtype(name) == tensor.dtype
            assert torch.equal(weights.tensor(name), tensor)
        assert all(torch.equal(tensor, given[name]) for name, tensor in weights.items())
        assert "other" not in weights


def test_every_type_has_torchs_name(tmp_path):
    kinds = [d for d in shards._DTYPES.values() if d != torch.bool]
    given = {str(kind): torch.ones(2, dtype=torch.float32).to(kind) for kind in kinds}
    save_tensors(tmp_path / "model.safetensors", {**given, "torch.bool": torch.ones(2, dtype=torch.bool)})
    with Weights(tmp_path) as weights:
        for name, tensor in weights.items():
            assert str(weights.dtype(name)) == str(tensor.dtype) == name


def test_an_unknown_name_offers_its_neighbour(tmp_path):
    save_tensors(tmp_path / "model.safetensors", tensors())
    weights = Weights(tmp_path)
    for ask in (weights.tensor, weights.shape, weights.dtype):
        with pytest.raises(
            CheckpointError, match=r"no tensor 'layer\.wieght'\. did you mean 'layer\.weight'"
        ):
            ask("layer.wieght")


def test_tied_names_come_back_as_one_tensor(tmp_path):
    shared = torch.randn(4, 3)
    save_tensors(tmp_path / FIRST, {"embedding.weight": shared, "head.weight": shared})
    save_tensors(tmp_path / SECOND, {"norm.weight": torch.ones(3)})
    table = {"embedding.weight": FIRST, "head.weight": FIRST, "norm.weight": SECOND}
    weights = Weights(write_index(tmp_path, table))
    assert weights.tied() == {"head.weight": "embedding.weight"}
    assert weights.names() == ["embedding.weight", "norm.weight", "head.weight"]
    assert weights.shape("head.weight") == (4, 3)
    assert torch.equal(weights.tensor("head.weight"), shared)
    read = dict(weights.items())
    assert read["head.weight"] is read["embedding.weight"]
    assert read.keys() == set(table)


def test_weights_that_are_not_numbers_are_named(tmp_path):
    sharded(tmp_path)
    assert Weights(tmp_path).not_finite() == []
    save_tensors(
        tmp_path / SECOND, {"layer.weight": torch.tensor([float("nan")]), "norm.weight": torch.ones(1)}
    )
    assert Weights(tmp_path).not_finite() == ["layer.weight"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mapped files")
def test_at_most_one_shard_is_open_and_none_is_copied(tmp_path):
    folder = sharded(tmp_path)
    weights = Weights(folder)
    assert not {FIRST, SECOND} & open_files()
    for name, _ in weights.items():
        assert {FIRST, SECOND} & open_files() == {Path(weights._entry(name)[0]).name}
    del _
    assert not {FIRST, SECOND} & open_files()
    with weights:
        before = (folder / FIRST).read_bytes()
        table = weights.tensor("embedding.weight")
        assert FIRST in open_files()
        table.add_(1)  # the page is ours now, the file isn't touched
        assert (folder / FIRST).read_bytes() == before
        assert weights.tensor("embedding.weight").data_ptr() == table.data_ptr()  # no second copy
    assert torch.equal(table, tensors()["embedding.weight"] + 1)
    del table
    assert not {FIRST, SECOND} & open_files()
    assert torch.equal(weights.tensor("layer.count"), torch.tensor(7))  # opened again
    weights.close()


def test_a_file_that_is_gone_after_its_header_was_read(tmp_path):
    weights = Weights(sharded(tmp_path))
    (tmp_path / SECOND).unlink()
    with pytest.raises(CheckpointError, match="can't be read"):
        weights.tensor("norm.weight")


# Folders without weights that are safe to read


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["config.json"], "holds no weights"),
        (["pytorch_model.bin", "optimizer.pt"], "pytorch_model.bin is a pickle"),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"], "is a pickle"),
        (["weights.pt"], "weights.pt is a pickle"),
        (["model.ckpt"], "model.ckpt is a pickle"),
        (
            ["tf_model.h5", "flax_model.msgpack"],
            "another library's format only (flax_model.msgpack, tf_model.h5)",
        ),
        ([FIRST, SECOND], "no model.safetensors.index.json"),
        (["a.safetensors", "b.safetensors"], "several files of weights"),
        (["._model.safetensors"], "holds no weights"),
    ],
)
def test_a_folder_without_readable_weights_says_what_to_do(tmp_path, files, words):
    for name in files:
        (tmp_path / name).write_bytes(b"PK\x03\x04")
    text = message(tmp_path)
    assert words in text
    assert "fetch" in text or "weights_only=True" in text


def test_what_is_not_there_names_its_neighbour(tmp_path):
    save_tensors(tmp_path / "model.safetensors", tensors())
    assert "did you mean 'model.safetensors'?" in message(tmp_path / "modle.safetensors")
    os.symlink("nowhere", tmp_path / "broken.safetensors")
    (tmp_path / "model.safetensors").unlink()
    assert "links to weights that aren't there: broken.safetensors" in message(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", INDEX])
def test_a_git_lfs_pointer_is_named(tmp_path, name):
    (tmp_path / name).write_text(POINTER)
    text = message(tmp_path)
    assert "git-lfs pointer" in text
    assert name in text


def test_a_pointer_in_place_of_a_shard_is_named(tmp_path):
    (sharded(tmp_path) / SECOND).write_text(POINTER)
    assert f"{SECOND} is a git-lfs pointer" in message(tmp_path)


# The index


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors", "a/../../model.safetensors", "/etc/model.safetensors", "..\\model.safetensors",
        "C:\\model.safetensors", "C:model.safetensors", "a\\..\\..\\m.safetensors", "./model.safetensors", "", "..",
        "a\0.safetensors", "a\n.safetensors", "\x1b[31m.safetensors", "//host/share/m.safetensors",
    ],
)  # fmt: skip
def test_an_index_names_files_of_its_folder_only(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    save_tensors(tmp_path / "model.safetensors", {"a": torch.ones(1)})
    text = message(write_index(folder, {"a": name}))
    assert "must stand in the folder of its index" in text
    assert text.isprintable()


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.bin", "is a pickle"), ("a.txt", "no safetensors file"), (".", "no safetensors file")],
)
def test_an_index_names_safetensors_only(tmp_path, name, words):
    if name != ".":
        (tmp_path / name).write_bytes(b"anything")
    assert words in message(write_index(tmp_path, {"a": name}))


def test_a_link_may_not_leave_the_folder(tmp_path):
    folder = sharded(tmp_path / "model")
    (folder / SECOND).rename(tmp_path / "elsewhere")
    (folder / SECOND).symlink_to(tmp_path / "elsewhere")
    assert "is a link that leaves its folder" in message(folder)
    (tmp_path / "elsewhere").rename(folder / "inside")
    (folder / SECOND).unlink()
    (folder / SECOND).symlink_to("inside")
    assert len(Weights(folder)) == 4


def test_the_hub_caches_links_stay_inside_the_cache(tmp_path):
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / ("0" * 40)
    (repository / "blobs").mkdir(parents=True)
    snapshot.parent.mkdir()
    sharded(snapshot)
    for number, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(repository / "blobs" / str(number))
        path.symlink_to(f"../../blobs/{number}")
    assert len(Weights(snapshot)) == 4
    (snapshot / FIRST).unlink()
    sharded(tmp_path / "models--other--name")
    (snapshot / FIRST).symlink_to(f"../../../models--other--name/{FIRST}")
    assert "is a link that leaves its folder" in message(snapshot)


def test_all_missing_shards_are_listed_at_once(tmp_path):
    table = {f"t{i}": f"model-{i}-of-3.safetensors" for i in range(3)}
    save_tensors(tmp_path / "model-1-of-3.safetensors", {"t1": torch.ones(1)})
    text = message(write_index(tmp_path, table))
    assert "lacks 2 of its 3 shards: model-0-of-3.safetensors, model-2-of-3.safetensors" in text


def test_all_tensors_that_a_shard_lacks_are_listed_at_once(tmp_path):
    sharded(tmp_path)
    table = json.loads((tmp_path / INDEX).read_text())["weight_map"]
    text = message(write_index(tmp_path, {**table, "ghost": FIRST, "layer.weight": FIRST}))
    assert f"'layer.weight' ({FIRST}), 'ghost' ({FIRST})" in text
    del table["norm.weight"]  # a shard may hold more than its index says: none of it is lost
    assert "norm.weight" in Weights(write_index(tmp_path, table))


def test_a_tensor_in_two_shards_is_found(tmp_path):
    sharded(tmp_path)
    save_tensors(tmp_path / SECOND, {n: tensors()[n] for n in ("norm.weight", "embedding.weight")})
    assert f"two shards: embedding.weight ({FIRST} and {SECOND})" in message(tmp_path)


@pytest.mark.parametrize("total", [-1, "80", True, 1.5, 2**70, [80], float("nan"), float("inf")])
def test_a_total_size_that_is_no_size_is_refused(tmp_path, total):
    assert "total_size" in message(sharded(tmp_path, total_size=total))


@pytest.mark.parametrize("total", [None, 80, 80.0])
def test_a_total_size_that_fits_or_is_missing_is_taken(tmp_path, total):
    assert Weights(sharded(tmp_path, total_size=total)).num_bytes == 80


def test_a_total_size_that_differs_is_told(tmp_path):
    said = []
    Weights(sharded(tmp_path, total_size=81), warn=said.append)
    assert said == [f"{tmp_path / INDEX} says that the weights have 81 bytes; they have 80."]


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": 1}}',
        "{",
        "[" * 100_000,
        "\xff",
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path, content):
    (tmp_path / INDEX).write_bytes(content.encode("latin-1"))
    message(tmp_path)


def test_a_giant_index_is_refused_before_it_is_parsed(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the index was parsed")

    monkeypatch.setattr(json, "loads", never)
    (tmp_path / INDEX).write_bytes(
        b'{"weight_map": {' + b",".join(b'"%d":"a"' % i for i in range(60_000)) + b"}}"
    )
    assert "lists more than 50,000 tensors" in message(tmp_path)
    os.truncate(tmp_path / INDEX, 17 * 2**20)
    assert "17,825,792 bytes; an index has at most" in message(tmp_path)


def test_real_weights_are_read_as_they_are(shared):
    file = shared / "weights" / "stories260K" / "stories260K.safetensors"
    if not file.is_file():
        pytest.skip("needs weights/stories260K in the data folder")
    whole = load_tensors(file)
    with Weights(file.parent) as weights:
        assert set(weights.names()) == set(whole)
        assert all(torch.equal(tensor, whole[name]) for name, tensor in weights.items())
        assert weights.not_finite() == []
