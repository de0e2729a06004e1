"""The synthetic camera: a made-up scene with exact truth, for first contact, tests and benchmarks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgecv.core.frame import Frame
from edgecv.core.stream import StreamFacts
from edgecv.errors import UsageError
from edgecv.runtime.sources.files import Pacer
from edgecv.vision.scenes import Scene, SceneFrame, SceneSpec

OPTIONS = "size=WIDTHxHEIGHT, objects=N, seed=N, fps=N, frames=N, pace=fast or realtime"


@dataclass(frozen=True)
class SyntheticOptions:
    """The scene, how many frames of it (None: without end), and whether at its own rate or as fast as read."""

    scene: SceneSpec = field(default_factory=SceneSpec)
    frames: int | None = None
    realtime: bool = False


class SyntheticSource:
    """See the module; implements `edgecv.core.stream.Source`."""

    def __init__(self, options: SyntheticOptions) -> None:
        self.options = options
        self._scene = Scene(options.scene)
        self._index = self._first = 0
        self._pacer: Pacer | None = None

    def open(self) -> StreamFacts:
        """See `edgecv.core.stream.Source.open`."""
        options = self.options
        self._pacer = Pacer(options.scene.fps) if options.realtime else None
        self._first = self._index  # opened again, the scene goes on from here
        return StreamFacts("synthetic", options.scene.size, options.scene.fps, options.realtime, options.frames)

    def read(self) -> Frame | None:
        """See `edgecv.core.stream.Source.read`."""
        options, index = self.options, self._index
        if options.frames is not None and index >= options.frames:
            return None
        self._index += 1
        image = self._scene.frame(index).image
        captured_s = time.monotonic() if self._pacer is None else self._pacer.wait_for(index - self._first)
        media_s = index / options.scene.fps if self._pacer is None else None
        return Frame(image, captured_s, index, "synthetic", media_s)

    def close(self) -> None:
        """See `edgecv.core.stream.Source.close`."""

    def truth(self, index: int) -> SceneFrame:
        """The frame ``index`` with what is to be found in it."""
        return self._scene.frame(index)


def synthetic_source(text: str, options: Mapping[str, Any]) -> SyntheticSource:
    """The source of ``synthetic:NAME=VALUE,...``; ``options`` are the same by name.

    Raises:
        UsageError: an option is unknown or its value not allowed.
    """
    given = {name: _text(value) for name, value in options.items()}
    for item in filter(None, text.split(",")):
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"synthetic:{text}: {item!r} is not NAME=VALUE; allowed: {OPTIONS}")
        given[name.strip()] = value.strip()
    chosen = SyntheticOptions()
    for name, value in given.items():
        chosen = _with(chosen, name, value)
    return SyntheticSource(chosen)


def _text(value: Any) -> str:
    """A value as an address has it; a size may also be a list of width and height."""
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _with(options: SyntheticOptions, name: str, value: str) -> SyntheticOptions:
    scene = options.scene
    if name == "pace" and value in ("fast", "realtime"):
        return replace(options, realtime=value == "realtime")
    if name == "size":
        width, _, height = value.partition("x")
        if width.isdigit() and height.isdigit() and 32 <= int(width) <= 4096 and 32 <= int(height) <= 4096:
            return replace(options, scene=replace(scene, size=(int(height), int(width))))
    elif name == "fps" and value.replace(".", "", 1).isdigit() and 1 <= float(value) <= 1000:
        return replace(options, scene=replace(scene, fps=float(value)))
    elif name in _COUNTS and value.isdigit():
        low, high = _COUNTS[name]
        if low <= int(value) <= high:
            if name == "frames":
                return replace(options, frames=int(value))
            count: Any = int(value)
            return replace(options, scene=replace(scene, **{name: count}))
    raise UsageError(f"the synthetic camera has no {name}={value}; allowed: {OPTIONS}")


_COUNTS = {"objects": (0, 200), "seed": (0, 2**31), "frames": (1, 10**9)}
