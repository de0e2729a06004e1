"""Multi-object tracking: detections of single frames get ids that last. A tracker is one module and one row here."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from edgecv.core.plain import PlainError, from_plain
from edgecv.core.stream import Tracker
from edgecv.errors import UsageError
from edgecv.track.bytetrack import ByteTrack, ByteTrackOptions
from edgecv.track.ocsort import OcSort, OcSortOptions
from edgecv.track.sort import Sort, SortOptions

BOTSORT = ByteTrackOptions(model="xywh", camera_motion=True, appearance=True)

TRACKERS: dict[str, tuple[Callable[[Any], Tracker], Any]] = {
    "sort": (Sort, SortOptions()),
    "bytetrack": (ByteTrack, ByteTrackOptions()),
    "ocsort": (OcSort, OcSortOptions()),
    "botsort": (ByteTrack, BOTSORT),
}
"""By name: what makes the tracker, and its default options."""


def make(name: str, options: Mapping[str, Any] | None = None, *, fps: float | None = None) -> Tracker:
    """A new tracker; ``options`` are fields of its options class, ``fps`` the stream's nominal rate.

    Raises:
        UsageError: there is no such tracker or option, or a value is of the wrong type.
    """
    if name not in TRACKERS:
        near = difflib.get_close_matches(name, TRACKERS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"there is no tracker {name!r}; allowed: {', '.join(TRACKERS)}.{hint}")
    maker, defaults = TRACKERS[name]
    known = [item.name for item in fields(defaults)]
    given = dict(options or {})
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UsageError(f"tracker {name} has no option {unknown[0]!r}; allowed: {', '.join(known)}")
    try:
        checked = from_plain(type(defaults), given, name)
    except (PlainError, ValueError) as error:
        raise UsageError(f"tracker {error}") from error
    chosen = replace(defaults, **{key: getattr(checked, key) for key in given})
    if fps is not None and "fps" not in given:
        chosen = replace(chosen, fps=fps)
    if not chosen.fps > 0:
        raise UsageError(f"tracker {name}: fps is {chosen.fps}; above 0 is needed")
    return maker(chosen)
