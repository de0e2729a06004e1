"""Bounded queues between stages: order, drop policy, closing."""

from __future__ import annotations

import threading
import time

import pytest

from edgecv.runtime.channel import Channel, Closed


def test_items_come_out_in_order() -> None:
    channel: Channel[int] = Channel(3)
    for value in (1, 2, 3):
        channel.put(value)
    assert [channel.get(), channel.get(), channel.get()] == [1, 2, 3]
    assert channel.get(0.01) is None


def test_every_waits_for_room() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(1)
    entered, passed = threading.Event(), threading.Event()

    def write() -> None:
        entered.set()
        channel.put(2)
        passed.set()

    thread = threading.Thread(target=write)
    thread.start()
    entered.wait()
    assert not passed.wait(0.05)
    assert channel.get() == 1
    assert passed.wait(2)
    assert channel.get() == 2
    thread.join()


def test_latest_makes_room_and_tells() -> None:
    dropped: list[int] = []
    channel: Channel[int] = Channel(2, "latest", on_drop=dropped.append)
    for value in range(5):
        channel.put(value)
    assert dropped == [0, 1, 2]
    assert [channel.get(), channel.get()] == [3, 4]


def test_close_lets_a_reader_finish_and_frees_a_writer() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(1)
    seen: list[str] = []

    def write() -> None:
        try:
            channel.put(2)
        except Closed:
            seen.append("closed")

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.02)
    channel.close()
    thread.join(2)
    assert seen == ["closed"]
    assert channel.get() == 1
    with pytest.raises(Closed):
        channel.get()
    with pytest.raises(Closed):
        channel.put(3)


def test_discard_throws_away_what_is_inside() -> None:
    channel: Channel[int] = Channel(2)
    channel.put(1)
    assert len(channel) == 1
    channel.close(discard=True)
    with pytest.raises(Closed):
        channel.get()
