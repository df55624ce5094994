"""Looks are kept within bounds, and small questions are answered beside the work, few at a time."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.look.made import layer, look, side, uniform
from tests.look.pictures import look_at
from tests.serve.looking import aside

from regard.look.draw.payload import WHOLE, payload
from regard.look.reading import Look
from regard.serve import looks_store
from regard.serve.house import Missing
from regard.serve.looks_store import Kept, Looks, Quick, is_whole, payload_size
from regard.serve.plain import Plain
from regard.serve.work import Busy, Left


def made() -> Look:
    return look([layer("encoder.0", uniform(8)[None])], side(list("abcdefgh")))


def test_the_look_that_was_asked_about_longest_ago_goes_first() -> None:
    looks = Looks(most=2)
    first, second = looks.add(made()), looks.add(made())
    looks.get(first)
    third = looks.add(made())
    assert looks.get(first) and looks.get(third) and len(looks) == 2
    with pytest.raises(Missing, match="look again"):
        looks.get(second)
    assert len({first, second, third}) == 3


def test_bytes_are_bounded_and_the_newest_look_stays() -> None:
    size = made().nbytes
    looks = Looks(most_bytes=2 * size)
    names = [looks.add(made()) for _ in range(3)]
    assert len(looks) == 2
    with pytest.raises(Missing):
        looks.get(names[0])
    large = Looks(most_bytes=1)
    assert large.get(large.add(made())).look.nbytes == size


def test_maps_count_once_they_are_built() -> None:
    looks = Looks(most_bytes=2 * made().nbytes)
    first, second = looks.add(made()), looks.add(made())
    pyramid = looks.get(second).tiles(0, 0)
    assert pyramid is looks.get(second).tiles(0, 0)
    before = looks.get(second).look.nbytes
    assert pyramid.build()
    assert looks.get(second).look.nbytes == before + pyramid.nbytes > before
    looks.trim()
    with pytest.raises(Missing):
        looks.get(first)


def test_a_layer_and_a_head_are_places() -> None:
    kept = Kept(made(), whole=True)
    assert kept.head(0, 0)[0].name == "encoder.0"
    with pytest.raises(Missing, match="no layer 1"):
        kept.layer(1)
    with pytest.raises(Missing, match="no head 1"):
        kept.tiles(0, 1)


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_what_is_whole_follows_from_the_size_of_its_payload(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = look_at(kind, "a dog runs, a cat sleeps; two birds sing")
    sent = len(Plain(payload(found, pyramids=False)).body)
    assert sent <= payload_size(found) <= 2 * sent
    assert is_whole(found)
    monkeypatch.setattr(looks_store, "_WHOLE_BYTES", sent - 1)
    assert not is_whole(found)


def test_a_head_of_too_many_weights_is_not_whole() -> None:
    found = look_at("decoder")
    one = next(iter(found.layers.values()))
    many = torch.zeros(1, 1, 4).expand(1, WHOLE, -1)
    assert is_whole(found) and not is_whole(Look(found.sides, {one.name: replace(one, query=many)}))


def test_a_slow_question_never_holds_up_a_quick_one() -> None:
    async def go() -> list[str]:
        quick, hold, told = Quick(), threading.Event(), []

        async def ask(name: str, slow: bool) -> None:
            await quick.run(lambda: hold.wait(20) if slow else None, slow=slow)
            told.append(name)

        slow = [asyncio.ensure_future(ask(f"slow {k}", True)) for k in range(3)]
        await asyncio.sleep(0)
        await asyncio.gather(*(ask(f"quick {k}", False) for k in range(20)))
        assert not any(name.startswith("slow") for name in told)
        hold.set()
        await asyncio.gather(*slow)
        return told

    assert len(aside(go)) == 23


def test_at_most_two_are_answered_at_once_each_by_one_core() -> None:
    usual = torch.get_num_threads()

    async def go() -> int:
        quick, now, most, lock = Quick(), 0, 0, threading.Lock()

        def work() -> None:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            assert torch.get_num_threads() == 1
            time.sleep(0.002)
            with lock:
                now -= 1

        await asyncio.gather(*(quick.run(work) for _ in range(30)))
        return most

    assert aside(go) <= 2
    threads: list[int] = []
    other = threading.Thread(target=lambda: threads.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert torch.get_num_threads() == usual and threads == [usual]


def test_too_many_questions_are_refused_and_who_has_left_is_not_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Gone:
        async def is_disconnected(self) -> bool:
            return True

    async def go() -> None:
        quick, hold = Quick(), threading.Event()
        waiting = [asyncio.ensure_future(quick.run(lambda: hold.wait(20))) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await quick.run(lambda: None)
        hold.set()
        await asyncio.gather(*waiting)
        done: list[int] = []
        with pytest.raises(Left):
            await quick.run(lambda: done.append(1), Gone())  # type: ignore[arg-type]
        assert done == []

    monkeypatch.setattr("regard.serve.looks_store._WAITING", 4)
    aside(go)
