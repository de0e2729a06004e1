"""Where results go: ``KIND=PLACE`` becomes a `Sink`. A sink is one class and one row here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgecv.core.stream import Sink
from edgecv.errors import UsageError
from edgecv.runtime.channel import Policy
from edgecv.runtime.sinks.files import Pictures, TextFile, VideoFile, csv_head, csv_lines, json_lines, mot_lines
from edgecv.runtime.sinks.others import Callback, Mqtt, Window

__all__ = ["SINKS", "Callback", "parse"]


def _mqtt(place: str) -> Sink:
    """HOST[:PORT]/TOPIC."""
    address, slash, topic = place.partition("/")
    host, colon, port = address.partition(":")
    if not (host and slash and topic) or (colon and not port.isdigit()):
        raise UsageError(f"the sink mqtt={place} is not HOST:PORT/TOPIC, such as mqtt=localhost:1883/camera/1")
    return Mqtt(host, int(port or 1883), topic)


SINKS: dict[str, tuple[Callable[[str], Sink], Policy]] = {
    "video": (lambda place: VideoFile(Path(place)), "every"),
    "images": (lambda place: Pictures(Path(place)), "every"),
    "results": (lambda place: Pictures(Path(place), results=True), "every"),
    "jsonl": (lambda place: TextFile(Path(place), json_lines), "every"),
    "csv": (lambda place: TextFile(Path(place), csv_lines, head=csv_head()), "every"),
    "mot": (lambda place: TextFile(Path(place), mot_lines), "every"),
    "mqtt": (_mqtt, "latest"),
    "window": (lambda place: Window(place or "edgecv"), "latest"),
}
"""By kind: what makes the sink of a place, and whether every result is wanted or only the latest."""


def parse(text: str) -> tuple[str, Sink, Policy]:
    """``KIND=PLACE`` -> a name, the sink, its policy.

    Raises:
        UsageError: the kind is unknown or the place is missing or cannot be read.
    """
    kind, _, place = text.partition("=")
    if kind not in SINKS:
        raise UsageError(
            f"the sink {text!r} is of no known kind; allowed: {', '.join(f'{name}=...' for name in SINKS)}"
        )
    if not place and kind != "window":
        raise UsageError(f"the sink {text!r} names no place; write {kind}=PLACE")
    maker, policy = SINKS[kind]
    return text if kind != "mqtt" else f"mqtt={place.rpartition('@')[2]}", maker(place), policy
