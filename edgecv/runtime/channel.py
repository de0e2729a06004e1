"""A bounded queue between two stages, with the drop policy in its name and every drop counted."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Policy = Literal["every", "latest"]


class Closed(Exception):
    """The channel was closed and, for a reader, is empty."""


class Channel(Generic[T]):
    """First in, first out, at most ``capacity`` items, for one reader and any number of writers.

    ``every``: a writer waits for room. ``latest``: a writer never waits, the oldest item makes room and goes
    to ``on_drop``. After `close` no item is taken in any more; what is inside can still be read.
    """

    def __init__(self, capacity: int, policy: Policy = "every", *, on_drop: Callable[[T], None] | None = None) -> None:
        self._items: deque[T] = deque()
        self._capacity, self._policy, self._on_drop = capacity, policy, on_drop
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T) -> None:
        """Add an item.

        Raises:
            Closed: the channel is closed, or was closed while waiting for room.
        """
        dropped: list[T] = []
        with self._changed:
            while self._policy == "every" and len(self._items) >= self._capacity and not self._closed:
                self._changed.wait()
            if self._closed:
                raise Closed
            while len(self._items) >= self._capacity:
                dropped.append(self._items.popleft())
            self._items.append(item)
            self._changed.notify_all()
        if self._on_drop is not None:
            for old in dropped:
                self._on_drop(old)

    def get(self, timeout_s: float | None = None) -> T | None:
        """The oldest item; None where none came within ``timeout_s``.

        Raises:
            Closed: the channel is closed and empty.
        """
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._items:
                if self._closed:
                    raise Closed
                left_s = None if until_s is None else until_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return None
                self._changed.wait(left_s)
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self, *, discard: bool = False) -> None:
        """Take nothing in any more; ``discard`` throws away what is inside (it is not counted as dropped)."""
        with self._changed:
            self._closed = True
            if discard:
                self._items.clear()
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._items)
