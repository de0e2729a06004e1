"""A loop's status in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from edgecv.core.stream import LoopStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(status: LoopStatus) -> str:
    """All metrics of ``status``; names start with ``edgecv_``, units are in them."""
    lines: list[str] = []

    def add(name: str, kind: str, about: str, values: Iterable[tuple[dict[str, str], float | None]]) -> None:
        given = [(labels, value) for labels, value in values if value is not None]
        if not given:
            return
        lines.append(f"# HELP edgecv_{name} {about}")
        lines.append(f"# TYPE edgecv_{name} {kind}")
        for labels, value in given:
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            lines.append(f"edgecv_{name}{{{inside}}} {value:g}" if inside else f"edgecv_{name} {value:g}")

    add("up", "gauge", "1 while frames are processed", [({}, float(status.state == "running"))])
    add("uptime_seconds", "gauge", "Time since the loop started", [({}, status.uptime_s)])
    add("fps", "gauge", "Finished frames per second", [({}, status.fps)])
    add("frames_total", "counter", "Finished frames", [({}, status.frames)])
    add("dropped_frames_total", "counter", "Frames left out for newer ones", [({}, status.dropped)])
    add("deadline_misses_total", "counter", "Frames later than the deadline", [({}, status.deadline_misses)])
    ages = (({"quantile": "0.5"}, status.age_p50_ms), ({"quantile": "0.95"}, status.age_p95_ms))
    add("frame_age_milliseconds", "gauge", "From capture to result", ages)
    stages = [
        ({"stage": stage.name, "quantile": quantile}, value)
        for stage in status.stages
        for quantile, value in (("0.5", stage.p50_ms), ("0.95", stage.p95_ms))
    ]
    add("stage_milliseconds", "gauge", "Time of a stage over the last frames", stages)
    events = (({"event": name}, float(count)) for name, count in asdict(status.camera).items())
    add("camera_events_total", "counter", "What happened to the camera", events)
    sinks = [
        ({"sink": sink.name, "outcome": outcome}, float(count))
        for sink in status.sinks
        for outcome, count in (("written", sink.written), ("dropped", sink.dropped), ("failed", sink.failed))
    ]
    add("sink_results_total", "counter", "Results by sink and outcome", sinks)
    heat = (({"zone": zone}, value) for zone, value in status.temperature_c.items())
    add("temperature_celsius", "gauge", "Temperature of a zone", heat)
    rails = (({"rail": rail}, value) for rail, value in status.power_w.items())
    add("power_watts", "gauge", "Power by rail; total is the whole, the others are parts of it", rails)
    total_w = status.power_w.get("total")
    energy = total_w / status.fps if total_w is not None and status.fps > 0 else None
    add("energy_per_frame_joules", "gauge", "Power over the rate", [({}, energy)])
    add("held_back", "gauge", "1 while the board is throttled or under-powered", [({}, float(bool(status.flags)))])
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
