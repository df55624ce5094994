import json
import os
import stat
import struct
import threading
import warnings

import pytest
import torch
from torch import nn

from regard.checkpoints import files
from regard.checkpoints.files import (
    is_finite,
    load_into,
    load_tensors,
    read_json,
    save_tensors,
    write_json_atomic,
)
from regard.errors import CheckpointError


def write(path, header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def entry(begin, end, shape=None, dtype="F32"):
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


def message(path):
    with pytest.raises(CheckpointError) as caught:
        load_tensors(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.inner = nn.Linear(3, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


# Round trips


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8]
)
def test_save_then_load_is_the_identity(tmp_path, dtype):
    tensors = {
        "a": torch.randn(3, 4).to(dtype),
        "scalar": torch.ones((), dtype=dtype),
        "none": torch.ones(0, 2, dtype=dtype),
    }
    save_tensors(tmp_path / "x.safetensors", tensors)
    loaded = load_tensors(tmp_path / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == dtype
        assert torch.equal(loaded[name], tensor)


def test_tied_weights_are_saved_once_and_tied_again(tmp_path):
    model = Tied()
    path = tmp_path / "x.safetensors"
    save_tensors(path, model.state_dict(), {"by": "test"})
    header = json.loads(path.read_bytes()[8 : 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]])
    assert "embedding.weight" in header
    assert "head.weight" not in header
    assert header["__metadata__"]["format"] == "pt"
    loaded = load_tensors(path)
    assert loaded["head.weight"] is loaded["embedding.weight"]
    other = Tied()
    load_into(other, loaded)
    assert other.head.weight is other.embedding.weight
    assert torch.equal(other.head.weight, model.head.weight)


def test_views_and_slices_are_saved_by_value(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"base": base, "turned": base.T, "row": base[1], "column": base[:, 1]}
    save_tensors(tmp_path / "x.safetensors", tensors)
    loaded = load_tensors(tmp_path / "x.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


def test_saving_over_the_file_that_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.arange(1000.0)})
    loaded = load_tensors(path)
    save_tensors(path, {"a": loaded["a"] + 1})
    assert torch.equal(loaded["a"], torch.arange(1000.0))
    assert torch.equal(load_tensors(path)["a"], torch.arange(1000.0) + 1)
    assert os.listdir(tmp_path) == ["x.safetensors"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(28, "No space left on device")

    save_tensors(tmp_path / "x.safetensors", {"a": torch.ones(2)})
    write_json_atomic(tmp_path / "x.json", {"a": 1})
    monkeypatch.setattr(os, call, full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="No space left on device"):
        write_json_atomic(tmp_path / "x.json", {"a": 2})
    monkeypatch.undo()
    assert torch.equal(load_tensors(tmp_path / "x.safetensors")["a"], torch.ones(2))
    assert read_json(tmp_path / "x.json") == {"a": 1}
    assert sorted(os.listdir(tmp_path)) == ["x.json", "x.safetensors"]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_replaced(tmp_path, there):
    target, link = tmp_path / "far" / "x.json", tmp_path / "x.json"
    target.parent.mkdir()
    if there:
        write_json_atomic(target, {"a": 1})
    link.symlink_to(tmp_path / "again.json")
    (tmp_path / "again.json").symlink_to("far/x.json")
    write_json_atomic(link, {"a": 2})
    assert link.is_symlink() and not target.is_symlink()
    assert read_json(target) == read_json(link) == {"a": 2}
    assert os.listdir(target.parent) == ["x.json"]
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(CheckpointError, match="symbolic links"):
        write_json_atomic(link, {"a": 3})


@pytest.mark.parametrize("linked", [True, False])
def test_a_pipe_is_written_to_and_stays(tmp_path, linked):
    pipe = path = tmp_path / "pipe"
    os.mkfifo(pipe)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_json_atomic(path, {"a": 1})
    reader.join(30)
    assert json.loads(read[0]) == {"a": 1} and pipe.is_fifo()


@pytest.mark.parametrize(("minor", "full"), [(3, False), (7, True)])  # null and full
def test_a_device_stays(tmp_path, minor, full):
    device = tmp_path / "device"
    try:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, minor))
        device.open("rb").close()
    except OSError:
        pytest.skip("no device may be made or opened here")
    if full:
        with pytest.raises(CheckpointError, match="No space left"):
            write_json_atomic(device, {"a": 1})
    else:
        write_json_atomic(device, {"a": 1})
        save_tensors(device, {"a": torch.ones(2)})
    assert stat.S_ISCHR(device.stat().st_mode) and os.listdir(tmp_path) == ["device"]


def test_a_link_to_where_this_process_prints_is_written_to(tmp_path, monkeypatch):
    link, target = tmp_path / "stdout", tmp_path / "printed"
    target.touch()
    link.symlink_to(target)
    with target.open("rb") as printed:
        there = os.fstat(printed.fileno())
        fstat = os.fstat
        monkeypatch.setattr(os, "fstat", lambda number: there if number == 1 else fstat(number))
        write_json_atomic(link, {"a": 1})
        assert json.loads(printed.read()) == {"a": 1}  # the file that was open, not another of its name


# Files that aren't what they should be


def test_a_missing_file_names_its_neighbour(tmp_path):
    save_tensors(tmp_path / "model.safetensors", {"a": torch.ones(1)})
    assert "did you mean 'model.safetensors'?" in message(tmp_path / "modle.safetensors")
    assert "is a folder" in message(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s."),
        (
            "model.safetensors",
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
        ),  # the old torch.save
        ("model.safetensors", b"PK\x03\x04\x00\x00\x08\x08archive/data.pkl"),  # the new one
        ("pytorch_model.bin", b"(dp0\nVa\np1\nI1\ns."),  # the oldest protocol has no mark
    ],
)
def test_a_pickle_is_refused_with_what_to_do(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    text = message(tmp_path / name)
    assert "is a pickle" in text
    assert "weights_only=True" in text


def test_a_git_lfs_pointer_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")
    assert "git-lfs pointer" in message(path)


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        ({"a": entry(0, 8)}, b"\0" * 4, "incomplete"),
        ({"a": entry(0, 2**60)}, b"", "incomplete"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, b"\0" * 12, "'a' and 'b' claim the same bytes"),
        ({"a": entry(0, 8), "b": entry(0, 8)}, b"\0" * 8, "claim the same bytes"),
        ({"a": entry(4, 8)}, b"\0" * 8, "can't be read"),
        ({"a": entry(0, 8, shape=[3])}, b"\0" * 8, "needs 12 bytes and has 8"),
        ({"a": entry(0, 8, shape=[2**62, 2**62, 2**62])}, b"\0" * 8, "needs"),
        ({"a": entry(0, 0, shape=[2**63, 0])}, b"", "isn't valid"),
        ({"a": entry(8, 0, shape=[0])}, b"\0" * 8, "needs"),
        ({"a": entry(-8, 0)}, b"\0" * 8, "isn't valid"),
        ({"a": entry(0, 8, dtype="F33")}, b"\0" * 8, "'F33'"),
        ({"a": entry(0, 8, shape=[True, 2])}, b"\0" * 8, "isn't valid"),
        ({"a": {"dtype": "F32"}}, b"", "isn't valid"),
        ({"a": 5}, b"", "isn't valid"),
        ([1, 2], b"", "isn't an object"),
        (b'{"a": {', b"", "header isn't valid"),
        (b"\xff\xfe", b"", "header isn't valid"),
        (b'{"a": 1, "a": 2}', b"", "stands in it twice"),
        (b"[" * 100_000, b"", "header isn't valid"),
        ({"__metadata__": {"shared": "nonsense"}, "a": entry(0, 8)}, b"\0" * 8, "tied names"),
    ],
)
def test_a_header_that_lies_is_found_out(tmp_path, header, data, words):
    path = write(tmp_path / "x.safetensors", header, data)
    assert words in message(path)


def test_sizes_are_refused_before_memory_is_taken(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the header was believed")

    monkeypatch.setattr("safetensors.safe_open", never)
    sparse = tmp_path / "large.safetensors"
    write(sparse, b"{}", length=100 * 2**20)
    assert "doesn't end within" in message(sparse)
    os.truncate(sparse, 200 * 2**20)
    monkeypatch.setattr(json, "loads", never)
    assert "header of 104,857,600 bytes" in message(sparse)
    monkeypatch.setattr(files, "MAX_TENSORS", 10)
    many = write(tmp_path / "many.safetensors", {f"t{i}": entry(0, 0, shape=[0]) for i in range(11)})
    assert "more than 10 tensors" in message(many)


def test_short_files_are_named(tmp_path):
    for content in (b"", b"{", b"\0" * 8, b"\xff" * 8):
        path = tmp_path / "x.safetensors"
        path.write_bytes(content)
        assert message(path)


@pytest.mark.parametrize("bytes_kept", [0, 5, 9, 100, -1])
def test_a_cut_file_is_never_loaded(tmp_path, bytes_kept):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.randn(50), "b": torch.randn(7)})
    path.write_bytes(path.read_bytes()[:bytes_kept])
    assert message(path)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_finite(kind):
    large = torch.full((70_000,), torch.finfo(kind).max, dtype=kind)
    assert is_finite(large)  # though its sum isn't
    assert is_finite(torch.ones(3, dtype=kind))
    for bad in ("nan", "inf", "-inf"):
        assert not is_finite(torch.tensor([1.0, float(bad), 2.0], dtype=kind))


def test_nan_weights_are_named_and_large_ones_are_not(tmp_path):
    path = tmp_path / "x.safetensors"
    large = torch.full((4,), torch.finfo(torch.float32).max)
    tensors = {"good": torch.ones(3), "bad": torch.tensor([1.0, float("nan")]), "large": large}
    save_tensors(path, {**tensors, "worse": torch.tensor([float("-inf")], dtype=torch.float16)})
    said = []
    load_tensors(path, warn=said.append)
    (text,) = said
    assert "bad, worse" in text
    assert "good" not in text
    assert "large" not in text
    with pytest.warns(UserWarning, match="NaN or infinite"):
        load_tensors(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_tensors(path, check_finite=False)


# Into a model


def test_one_error_lists_all_that_does_not_fit():
    model = Tied()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = dict(model.state_dict())
    del tensors["inner.bias"], tensors["count"]
    tensors["inner.weight"] = torch.zeros(2, 3)
    tensors["inner.bais"] = torch.zeros(3)
    tensors["other"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        load_into(model, tensors)
    text = str(caught.value)
    assert "missing: count, inner.bias" in text
    assert "inner.bais (did you mean 'inner.bias'?), other" in text
    assert "inner.weight (2, 3) where the model has (3, 3)" in text
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kept", ["embedding.weight", "head.weight"])
def test_a_tied_weight_is_needed_under_one_name_only(kept):
    model = Tied()
    tensors = {name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}
    given = {
        name: t
        for name, t in tensors.items()
        if name == kept or name not in ("embedding.weight", "head.weight")
    }
    load_into(model, given)
    assert torch.equal(model.embedding.weight, torch.ones(5, 3))
    tensors["head.weight"] = torch.zeros(5, 3)
    with pytest.raises(CheckpointError, match=r"different though tied: embedding\.weight and head.weight"):
        load_into(model, tensors)


# Settings


def test_json_that_cannot_be_read_says_where(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(CheckpointError, match=r"config.json:2: not valid JSON"):
        read_json(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="can't be read as JSON"):
        read_json(path)
    path.write_text("[" * 200_000)
    with pytest.raises(CheckpointError):
        read_json(path)
    with pytest.raises(CheckpointError, match=r"did you mean 'config\.json'"):
        read_json(tmp_path / "confg.json")
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(path) == {}
