"""Rows, tokenizers and configurations before training: what is read, held out, refused, and never held in memory."""

from __future__ import annotations

import pytest
from tests.tiny_data import write_all

from regard.data.store import TokenStore
from regard.errors import CheckpointError, ConfigError, DataError
from regard.models.families import preset
from regard.tasks import preparation
from regard.tasks.base import DataSize, TooLongError, encode_texts
from regard.tasks.folders import new_run, read_run
from regard.tasks.preparation import (
    Corpus,
    Part,
    Reading,
    Rows,
    Watched,
    Working,
    encode_part,
    first_rows,
    fit_model,
    make_tokenizer,
    open_rows,
    split_rows,
    whole,
)
from regard.tasks.registry import TASKS, get_task
from regard.tasks.settings import check_early, split_settings, train_config


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(write_all(tmp_path))
    return tmp_path


def source(text, task="generate", **reading):
    from pathlib import Path

    Path("given.txt").write_text(text)
    return open_rows("given.txt", get_task(task), Reading(**reading))


def joined(part):
    return "".join(row["text"] for row in part.rows)


@pytest.mark.parametrize("length", [10, 11, 99, 100, 1234])
def test_running_text_is_cut_where_its_last_tenth_begins(here, length):
    text = "".join(chr(97 + i % 26) for i in range(length))
    trained, held = split_rows(source(text), None, get_task("generate"))
    assert joined(trained) + joined(held) == text
    assert len(joined(held)) == held.size.characters == length // 10
    assert trained.size.characters == length - length // 10


def test_several_files_are_one_stream_with_and_without_held_out_data(here):
    for name in "ab":
        (here / f"{name}.txt").write_text(name * 20)
    task = get_task("generate")
    rows = open_rows(["a.txt", "b.txt"], task, Reading())
    for held_out in (None, open_rows("b.txt", task, Reading())):
        trained, held = split_rows(rows, held_out, task)
        assert all(row["stream"] for part in (trained, held) for row in part.rows)
    assert joined(trained) == "a" * 20 + "b" * 20


@pytest.mark.parametrize(
    ("documents", "stream"), [(None, True), ("file", True), ("line", False), ("blank", False)]
)
def test_documents_that_were_asked_for_stay_apart(here, documents, stream):
    rows = source("\n\n".join(f"line {i}" for i in range(30)), documents=documents)
    for part in (
        *split_rows(rows, None, get_task("generate"), documents=documents),
        whole(rows, get_task("generate"), documents=documents),
    ):
        assert all(bool(row.get("stream")) == stream for row in part.rows)


def test_rows_are_parts_that_can_be_read_again(here):
    rows = source("".join(f"label{i % 2} text {i}\n" for i in range(25)), "classify")
    trained, held = split_rows(rows, None, get_task("classify"))
    for _ in range(2):
        assert [row["text"] for row in trained.rows] == [f"text {i}" for i in range(23)]
        assert [row["text"] for row in held.rows] == ["text 23", "text 24"]
    less = held.rows.without([0])
    assert [row["text"] for row in less] == ["text 24"]
    assert less.place(0) == "given.txt:25"
    again = trained.rows.without([0, 2]).without([0])
    assert [row["text"] for row in again][:2] == ["text 3", "text 4"]


def test_nothing_reads_further_than_it_must():
    class Endless:
        def __iter__(self):
            from regard.data.rows import Row

            n = 0
            while True:
                yield Row({"text": "x" * 10}, "endless", n)
                n += 1

    assert len(list(Rows(Endless(), 0, 5))) == 5
    assert len(list(first_rows(Rows(Endless())))) == preparation.KEPT_ROWS


def test_reading_tells_how_far_it_is(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(preparation.time, "monotonic", lambda: next(clock))
    told = []
    part = Part([{"text": "four"}] * 4, DataSize(4, 16))
    assert len(list(Watched(part, get_task("generate"), "reading", told.append))) == 4
    assert [event.share for event in told] == [0, 0.25, 0.5, 0.75, 1.0]
    assert told[-1] == Working("reading", 1.0, 4)


def test_texts_that_are_too_long_are_all_named():
    words = make_tokenizer(["abc"], "char", None, False, get_task("fill").suit(DataSize(0, 0)))
    texts = ["a", "abca", "ab", "abcabc"]
    with pytest.raises(TooLongError, match=r"2 of 4 texts .* number 2, the longest has 6") as caught:
        list(encode_texts(texts, words, limit=3))
    assert (caught.value.numbers, caught.value.longest) == ([1, 3], 6)
    assert len(list(encode_texts(texts, words, limit=6))) == 4


def test_running_text_keeps_its_ends_in_place(here):
    text = "one\ntwo\nthree\n"
    task = get_task("generate")
    rows = source(text * 50, documents="line")
    part = whole(rows, task, documents="line")
    words = make_tokenizer(Corpus(task, part.rows), "char", None, False, task.suit(part.size))
    config = fit_model(task, "generate-tiny", words, (), {"width": 16, "num_heads": 2})
    encode_part(task, part, words, config, here, what="tokenising")
    store = TokenStore.open(here / "documents.tokens")
    assert len(store) == 150
    assert [words.decode(ids) for ids in store][:3] == ["one", "two", "three"]
    assert all(ids[-1] == words.eos_id for ids in store)


def test_a_model_is_fitted_to_the_task_and_the_data(here):
    words = make_tokenizer(["abc def"], "char", None, False, get_task("tag").suit(DataSize(0, 0)))
    config = fit_model(get_task("tag"), "bert-base", words, ("A", "B"), {"width": 24, "num_heads": 2})
    assert (config.head, config.labels, config.vocab_size) == ("tag", ("A", "B"), words.vocab_size)
    assert (config.pad_id, config.bos_id, config.eos_id) == (words.pad_id, words.bos_id, words.eos_id)
    assert (config.width, config.head_size, config.norm_placement) == (24, 12, "post")
    with pytest.raises(ConfigError, match="head follows from the task and its data"):
        fit_model(get_task("tag"), "bert-base", words, ("A", "B"), {"head": "lm"})
    denoiser = fit_model(get_task("denoise"), "t5-small", words, (), {})
    assert denoiser.vocab_size > words.vocab_size  # T5's sentinels


def test_settings_are_sorted_and_none_is_no_setting():
    assert split_settings({"lr": 1, "width": 8, "steps": None}) == ({"lr": 1}, {"width": 8})
    with pytest.raises(ConfigError, match=r"unknown setting 'widht'. did you mean 'width'"):
        split_settings({"widht": 8})


def test_an_end_that_is_given_replaces_the_one_that_suits():
    suited = {"epochs": 3, "schedule": "linear"}
    assert train_config(suited, {}).epochs == 3
    assert train_config(suited, {"steps": 9}).epochs is None
    assert train_config(suited, {"minutes": 9}).epochs is None
    both = train_config(suited, {"steps": 9, "epochs": 4})
    assert (both.steps, both.epochs) == (9, 4)


@pytest.mark.parametrize("task", TASKS)
def test_what_suits_a_task_passes_its_own_checks(task):
    check_early(
        get_task(task), model=None, tokenizer=None, vocab_size=None, lowercase=False, of_training={}, of_model={}
    )  # fmt: skip


def test_an_unknown_task():
    with pytest.raises(ConfigError, match="did you mean 'translate'"):
        get_task("translat")


def test_a_folder_is_a_run_with_everything_or_not_at_all(tmp_path):
    folder = tmp_path / "deep" / "run"
    with pytest.raises(ZeroDivisionError), new_run(folder, "fill") as (_, gathered):
        (gathered / "file").write_bytes(bytes(1 // 0))
    assert list(tmp_path.iterdir()) == []
    with new_run(folder, "fill") as (_, gathered):
        (gathered / "regard.json").write_text("{}")
        with pytest.raises(CheckpointError, match="stopped while its data was prepared"):
            read_run(folder)
    assert [path.name for path in folder.iterdir()] == ["regard.json"]
    with pytest.raises(ConfigError, match="go on with it by --resume"), new_run(folder, "fill"):
        pass


def test_what_a_killed_preparation_leaves_is_cleared(tmp_path):
    folder = tmp_path / "run"
    (folder / ".preparing" / "data").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "config.json").write_text("old")
    with new_run(folder, "fill") as (_, gathered):
        assert [path.name for path in folder.iterdir()] == [".preparing"]
        (gathered / "regard.json").write_text("{}")
    assert [path.name for path in folder.iterdir()] == ["regard.json"]


def test_a_tokenizer_that_is_given(here):
    spec = get_task("fill").suit(DataSize(0, 0))
    make_tokenizer(["abc"], "char", None, False, spec).save(here / "words")
    assert make_tokenizer([], here / "words", None, False, spec).vocab_size == 8
    for given, size, lowercase in (
        ("words", 9, False),
        ("words", None, True),
        ("byte", 300, False),
        ("gone", None, False),
    ):
        with pytest.raises(ConfigError):
            make_tokenizer([], given, size, lowercase, spec)


def test_all_texts_too_long(here):
    task = get_task("classify")
    rows = source("a long text here\n" * 20, "classify")
    part = whole(rows, task)
    words = make_tokenizer(Corpus(task, part.rows), "char", None, False, task.suit(part.size))
    config = fit_model(task, "encoder-tiny", words, ("a", "b"), {"context": 4})
    with pytest.raises(DataError, match="all 20 texts are longer than the context of 4"):
        encode_part(task, part, words, config, here, what="x", skip_long=True)
    with pytest.raises(DataError, match=r"given.txt:1: 20 of 20 .* the longest 16; leave such texts out"):
        encode_part(task, part, words, config, here, what="x", fixed_context=True)
    assert preset("encoder-tiny").context > 13
