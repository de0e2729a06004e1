"""A sink on a thread of its own, behind a bounded queue: whatever it does, the loop goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edgecv.core.figures import SinkFigures
from edgecv.core.stream import FrameResult, Sink, SinkStatus, StreamFacts
from edgecv.errors import EdgecvError
from edgecv.runtime.channel import Channel, Closed, Policy

_FAILURES_IN_A_ROW = 20


class SinkRunner:
    """Gives a sink one result after the other.

    ``every``: the loop waits up to ``wait_s`` for room, then drops; ``latest``: the oldest result makes room at
    once. A sink that hangs keeps its own thread only; one that fails 20 times in a row is switched off.
    Everything is counted in `status`.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        queue: int = 8,
        policy: Policy = "latest",
        wait_s: float = 1.0,
        on_event: Callable[[str, str], None] | None = None,
        on_time: Callable[[str, float], None] | None = None,
    ) -> None:
        self.name, self._sink = name, sink
        self._policy, self._wait_s = policy, wait_s
        self._channel: Channel[FrameResult] = Channel(queue, "latest", on_drop=self._drop)
        self._capacity = queue
        self._on_event, self._on_time = on_event, on_time
        self._written = self._dropped = self._failed = self._in_a_row = 0
        self._error = ""
        self._alive = True
        self._room = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"edgecv-sink-{name}", daemon=True)

    def open(self, facts: StreamFacts) -> None:
        """Open the sink, then start its thread.

        Raises:
            EdgecvError: the sink cannot be opened.
        """
        self._sink.open(facts)
        self._thread.start()

    def offer(self, item: FrameResult) -> None:
        """Hand a result over; returns at once, or after ``wait_s`` at most where every result is wanted."""
        if not self._alive:
            self._dropped += 1
            return
        if self._policy == "every" and len(self._channel) >= self._capacity:
            until_s = time.monotonic() + self._wait_s
            with self._room:
                while len(self._channel) >= self._capacity and self._alive:
                    left_s = until_s - time.monotonic()
                    if left_s <= 0:
                        # It hangs: the loop waits for it once, not once a frame.
                        self._policy = "latest"
                        self._say("sink hangs", f"{self.name} took nothing for {self._wait_s:g} s")
                        break
                    self._room.wait(left_s)
        try:
            self._channel.put(item)
        except Closed:
            self._dropped += 1

    def close(self, *, within_s: float = 5.0) -> None:
        """Let the sink write what is waiting and finish; a sink that does not is left behind."""
        self._channel.close()
        if self._thread.is_alive():
            self._thread.join(within_s)
        if self._thread.is_alive():
            self._alive = False
            self._error = self._error or f"did not end within {within_s:g} s"
            self._dropped += len(self._channel)
            self._say("sink left behind", f"{self.name} {self._error}")

    @property
    def status(self) -> SinkStatus:
        """What became of the results so far."""
        return SinkStatus(self.name, self._written, self._dropped, self._failed, self._alive, self._error)

    @property
    def figures(self) -> SinkFigures:
        """The same, for the report."""
        return SinkFigures(self.name, self._written, self._dropped, self._failed, self._error)

    def _run(self) -> None:
        try:
            while (item := self._channel.get()) is not None:
                with self._room:
                    self._room.notify_all()
                if not self._alive:
                    self._dropped += 1
                    continue
                started_s = time.monotonic()
                self._write(item)
                if self._on_time is not None:
                    self._on_time("sink " + self.name.partition("=")[0], (time.monotonic() - started_s) * 1000.0)
        except Closed:
            pass
        finally:
            self._finish()

    def _write(self, item: FrameResult) -> None:
        try:
            self._sink.write(item)
        except (EdgecvError, OSError) as error:
            self._lost(str(error))
        except Exception as error:  # noqa: BLE001 - a user's callback may raise anything; it must not end the loop
            self._lost(f"{type(error).__name__}: {error}")
        else:
            self._written += 1
            self._in_a_row = 0

    def _lost(self, why: str) -> None:
        self._failed += 1
        self._in_a_row += 1
        if self._in_a_row == 1:
            self._say("sink failed", f"{self.name}: {why}")
        self._error = why
        if self._in_a_row >= _FAILURES_IN_A_ROW:
            self._alive = False
            self._say("sink off", f"{self.name} failed {self._in_a_row} times in a row")

    def _finish(self) -> None:
        try:
            self._sink.close()
        except (EdgecvError, OSError) as error:
            self._error = str(error)
            self._say("sink failed", f"{self.name} at its end: {error}")
        except Exception as error:  # noqa: BLE001 - as in _write
            self._error = f"{type(error).__name__}: {error}"

    def _drop(self, _item: FrameResult) -> None:
        self._dropped += 1

    def _say(self, kind: str, text: str) -> None:
        if self._on_event is not None:
            self._on_event(kind, text)
