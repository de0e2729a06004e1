"""What travels between the threads of a loop, and the models that work on it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgecv.backends.stream import StreamEngine
from edgecv.core.frame import Frame
from edgecv.core.tensor import Array
from edgecv.core.trace import Trace
from edgecv.errors import DataError, UsageError
from edgecv.runtime.load import Model, load_artifact
from edgecv.vision.clips import ClipWindow, Moment, StreamPace

BUFFERS = 2
"""Frames that a model holds: one in the engine, one that is being pre-processed."""


@dataclass(frozen=True)
class Level:
    """A loaded artifact with its input buffers, which are the only large arrays that a loop fills.

    Each slot of ``slots`` has one, or as many as a frame has tiles. ``window`` holds the last frames for a network
    that takes clips; where it streams, ``pace`` says which frames count, and the engine keeps what was seen.
    """

    name: str
    model: Model
    slots: tuple[list[Array], ...]
    window: ClipWindow | None = None
    pace: StreamPace | None = None

    @property
    def kind(self) -> str:
        """The model's family."""
        return self.model.manifest.family.kind

    def fill(self, frame: Frame, slot: int) -> tuple[list[Array], Moment | None]:
        """The network inputs for a frame in the buffers of ``slot``; where it looks back in time, what it sees.

        Raises:
            DataError: the picture cannot be used.
        """
        if self.window is None:
            inputs = self.model.subject.fill(frame.image, self.slots[slot])
            return inputs, None if self.pace is None else self.pace.see(frame.time_s)
        self.window.add(frame.image, frame.time_s)
        buffer = self.slots[slot][0]
        return [buffer], Moment(self.window.write(buffer, self.model.subject.input.layout))

    def infer(self, inputs: list[Array], moment: Moment | None) -> list[list[Array]]:
        """The stored outputs for each of the ``inputs`` that `fill` gave with ``moment``.

        Raises:
            EdgecvError: the engine failed.
        """
        engine = self.model.engine
        if moment is None or not isinstance(engine, StreamEngine):
            return [engine.run([array]) for array in inputs]
        if moment.anew:
            engine.reset()
        return [engine.step([array], times=moment.times) for array in inputs]

    def keep(self, frame: Frame | None) -> None:
        """Look at a frame that is not answered itself: a later clip shows it. A broken one is passed over."""
        if self.window is not None and frame is not None:
            with contextlib.suppress(DataError):
                self.window.add(frame.image, frame.time_s)

    def warm_up(self) -> None:
        """Run twice on an empty input: engines plan and allocate in their first runs."""
        for slot in self.slots:
            self.model.engine.run([slot[0]])


@dataclass
class Work:
    """One frame on its way: which model and buffers it uses (``inputs`` of its ``slot``), and what came out so far.

    ``moment`` is what the model sees where it looks back in time.
    """

    frame: Frame
    trace: Trace
    level: Level
    slot: int
    waiting_since_s: float = 0.0
    moment: Moment | None = None
    inputs: list[Array] = field(default_factory=list)
    outputs: list[list[Array]] = field(default_factory=list)
    result: Any = None


def load_levels(folders: tuple[str, ...], *, threads: int | None, score: float | None) -> tuple[Level, ...]:
    """Load a ladder of artifacts of one family; ``score`` replaces their score threshold.

    Raises:
        UsageError: they are of different families, or one takes rows of numbers, which no camera gives.
        EdgecvError: an artifact cannot be loaded; those loaded before are closed.
    """
    levels: list[Level] = []
    try:
        levels.extend(_load(folder, threads=threads, score=score) for folder in folders)
        kinds = {level.kind for level in levels}
        if len(kinds) > 1:
            raise UsageError(f"a ladder of {', '.join(sorted(kinds))} cannot be changed between; give one family")
    except BaseException:
        for level in levels:
            level.model.close()
        raise
    return tuple(levels)


def _load(folder: str, *, threads: int | None, score: float | None) -> Level:
    model = load_artifact(folder, threads=threads)
    subject = model.subject
    if subject.contract.vector:
        model.close()
        raise UsageError(
            f"{folder} takes rows of {subject.contract.size[1]} numbers; a camera loop gives pictures. Judge it by: "
            f"edgecv eval {folder} --data vectors:FILE.csv"
        )
    if score is not None:
        subject = replace(subject, spec=replace(subject.spec, score_threshold=score))
        model = replace(model, subject=subject)
    slots = tuple([subject.input_buffer()] for _ in range(BUFFERS))
    return Level(Path(folder).name, model, slots, subject.window(), subject.pace())
