"""The last frames as a Chrome-trace file: open it in Perfetto or chrome://tracing."""

from __future__ import annotations

import json
import os
from collections import deque
from pathlib import Path
from typing import Any

from edgecv.core.stream import FrameResult
from edgecv.errors import UsageError

_FRAMES = 2000


class Timeline:
    """Keeps the spans of the last 2,000 frames. One track a stage, so that overlapping stages can be seen."""

    def __init__(self) -> None:
        self._frames: deque[tuple[int, list[tuple[str, float, float]]]] = deque(maxlen=_FRAMES)

    def add(self, item: FrameResult) -> None:
        """Remember a frame's spans."""
        self._frames.append((item.frame.index, list(item.trace.spans)))

    def to_events(self) -> list[dict[str, Any]]:
        """Events of the Chrome trace format: complete events ("X"), times in microseconds."""
        frames = list(self._frames)
        names = list(dict.fromkeys(name for _, spans in frames for name, _, _ in spans))
        events: list[dict[str, Any]] = [
            {"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": {"name": name}}
            for number, name in enumerate(names, start=1)
        ]
        for index, spans in frames:
            events += [
                {
                    "ph": "X",
                    "pid": 1,
                    "tid": names.index(name) + 1,
                    "name": name,
                    "cat": "frame",
                    "ts": round(started_s * 1e6, 1),
                    "dur": round((ended_s - started_s) * 1e6, 1),
                    "args": {"frame": index},
                }
                for name, started_s, ended_s in spans
            ]
        return events

    def write(self, path: Path) -> None:
        """Write the file, in one step.

        Raises:
            UsageError: it cannot be written.
        """
        partial = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps({"traceEvents": self.to_events(), "displayTimeUnit": "ms"}), encoding="utf-8")
            os.replace(partial, path)
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror}); choose another place") from error
