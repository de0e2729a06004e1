"""Heat, power and energy in words: every figure with the name of its sensor."""

from __future__ import annotations

from edgecv.core.figures import LoopEvent, PowerFigures, SoakFigures
from edgecv.report.words import clean, count_text, seconds_text

__all__ = ["event_lines", "first_words", "joules_text", "mj_text", "power_facts", "soak_sentence", "watts_text"]

SHOWN_EVENTS = 12


def watts_text(watts: float) -> str:
    """``6.21 W``."""
    return f"{watts:.2f} W" if watts < 99.5 else f"{watts:.0f} W"


def mj_text(millijoules: float) -> str:
    """``207 mJ``, ``9.41 mJ``, ``2.31 J``."""
    if abs(millijoules) >= 1000:
        return f"{millijoules / 1000:.3g} J" if abs(millijoules) < 1e6 else f"{millijoules / 1000:,.0f} J"
    return f"{millijoules:.3g} mJ"


def joules_text(joules: float) -> str:
    """``3,720 J``, ``41.2 J``."""
    return f"{joules:,.0f} J" if joules >= 1000 else f"{joules:.3g} J"


def power_facts(power: PowerFigures) -> list[tuple[str, str]]:
    """Power, energy, rails and sensor, as pairs of a name and words."""
    idle = "" if power.idle_w is None else f", {watts_text(power.idle_w)} idle before"
    facts = [("power", f"{watts_text(power.mean_w)} on average, {watts_text(power.peak_w)} at most{idle}")]
    if power.mj_per_frame is not None:
        above = power.mj_per_frame_above_idle
        more = "" if above is None else f", {mj_text(above)} above idle"
        total = f"{joules_text(power.joules)} in {seconds_text(power.seconds)}"
        facts.append(("energy per frame", f"{mj_text(power.mj_per_frame)} gross{more} ({total})"))
    if len(power.rails_w) > 1:
        rails = ", ".join(f"{clean(name)} {watts_text(watts)}" for name, watts in power.rails_w.items())
        facts.append(("rails", rails))
    sensor = f"{clean(power.sensor)}, {count_text(power.samples, 'look')}: {clean(power.covers)}"
    return [*facts, ("power sensor", sensor)]


def event_lines(events: tuple[LoopEvent, ...]) -> list[str]:
    """What held the machine back and when that began and ended, one line each; the first 12, then how many more."""
    lines = [
        f"{seconds_text(event.at_s)}  {clean(event.kind)}: {_without(clean(event.text), event.kind)}"
        for event in events
    ]
    more = len(lines) - SHOWN_EVENTS
    return lines if more <= 0 else [*lines[:SHOWN_EVENTS], f"and {more} more"]


def soak_sentence(soak: SoakFigures) -> str:
    """What became of the rate, in one sentence."""
    said = f"{soak.sustained_fps:.1f} frames per second sustained, {soak.kept:.0%} of the first {first_words(soak)}"
    if soak.throttled_s is not None:
        said += f"; throttled after {seconds_text(soak.throttled_s)} ({clean(soak.throttled_why)})"
    else:
        said += f"; no throttling in {seconds_text(soak.seconds)}"
    if soak.power is not None and soak.power.mj_per_frame is not None:
        said += f"; {mj_text(soak.power.mj_per_frame)} per frame"
    return said + "."


def first_words(soak: SoakFigures) -> str:
    """``minute`` or ``15 s``: the stretch at the start that a soak's end is held against."""
    return "minute" if soak.first_s == 60 else seconds_text(soak.first_s)


def _without(text: str, kind: str) -> str:
    """``throttled: throttled: the ...`` would say it twice."""
    return text.removeprefix(f"{kind}: ")
