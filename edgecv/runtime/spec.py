"""A pipeline in words: which artifacts, which camera, which sinks. From one small JSON file or from flags."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from edgecv.core.plain import PlainError, from_plain
from edgecv.errors import UsageError
from edgecv.runtime.channel import Policy

MAX_SPEC_BYTES = 1 << 20


@dataclass(frozen=True)
class SecondStage:
    """A model that looks at single objects: a folder, and which objects.

    ``classes`` are labels of the detector (empty: all); at most ``max_objects`` a frame, the best scores
    first (None: 8 objects, or 100 pieces of text). ``margin`` widens the box (1.25: a quarter more on each axis; None:
    1.25, or 1 for text and other families whose networks are trained on tight boxes). ``every`` looks at the same
    track only in every n-th frame and keeps the answer in between. ``gallery`` is a file of `edgecv index`, which gives
    the embeddings of the model names.
    """

    artifact: str
    classes: tuple[str, ...] = ()
    max_objects: int | None = None
    margin: float | None = None
    every: int = 1
    gallery: str = ""


@dataclass(frozen=True)
class PipelineSpec:
    """One camera loop.

    ``detect`` (objects) or ``model`` (any family, the whole picture) is the first stage: a folder, or a
    ladder of folders from the best to the fastest, between which the governor changes. ``policy`` is
    ``latest`` (only the newest frame counts), ``every`` (no frame is left out) or ``auto``: latest for
    a camera, every for a file.
    ``gallery`` is a file of `edgecv index`: of a model of embeddings the loop then tells whom they show.
    ``reid`` is the folder of a model whose embeddings of the objects the tracker compares.
    ``max_age_ms`` leaves out frames that are older when their turn comes;
    ``deadline_ms`` only counts those that end later. The loop ends after ``frames`` or ``seconds``.
    """

    camera: str = "0"
    detect: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    gallery: str = ""
    track: str = ""
    track_options: dict[str, Any] = field(default_factory=dict)
    reid: str = ""
    second: SecondStage | None = None
    camera_options: dict[str, Any] = field(default_factory=dict)
    sinks: tuple[str, ...] = ()
    live: str = ""
    live_token: str = ""
    policy: Literal["auto", "every", "latest"] = "auto"
    max_age_ms: float | None = None
    deadline_ms: float | None = None
    frames: int | None = None
    seconds: float | None = None
    threads: int | None = None
    score: float | None = None
    report: str = ""
    timeline: str = ""
    pipeline: int = 1

    def check(self) -> None:
        """Hold the values against each other.

        Raises:
            UsageError: with every problem, one a line.
        """
        found = []
        if bool(self.detect) == bool(self.model):
            found.append("give either detect (objects, then tracking and a second stage) or model (any family)")
        if self.model and (self.track or self.second):
            found.append("track and a second stage follow detect; with model there are no objects to follow")
        if self.gallery and len(self.model) != 1:
            found.append("gallery goes with one model of embeddings; behind detect it stands in the second stage")
        if self.reid and self.track not in ("botsort", "bytetrack"):
            found.append(
                f"reid needs a tracker that compares looks; track is {self.track!r}, allowed are botsort and bytetrack"
            )
        if self.pipeline != 1:
            found.append(f"pipeline is {self.pipeline}; this edgecv reads version 1")
        bounds: tuple[tuple[str, float | None, float], ...] = (
            ("frames", self.frames, 1),
            ("seconds", self.seconds, 0.001),
            ("threads", self.threads, 1),
            ("max_age_ms", self.max_age_ms, 1),
            ("deadline_ms", self.deadline_ms, 0.001),
        )
        found += [f"{name} is {value}; {low:g} or more is allowed" for name, value, low in bounds if _below(value, low)]
        if self.score is not None and not 0 <= self.score <= 1:
            found.append(f"score is {self.score}; 0 to 1 is allowed")
        if self.second is not None:
            found += _second_problems(self.second)
        if found:
            raise UsageError("the pipeline cannot run: " + "; ".join(found))

    def policy_for(self, *, live: bool) -> Policy:
        """The policy that ``auto`` stands for."""
        if self.policy == "auto":
            return "latest" if live else "every"
        return self.policy


def read_spec(file: str | Path) -> PipelineSpec:
    """The pipeline of a JSON file: the fields of `PipelineSpec`; artifacts and sinks' paths are relative to it.

    ``detect`` and ``model`` may be one folder or a list, ``second`` a folder or an object.

    Raises:
        UsageError: the file cannot be read, is no JSON object, or holds an unknown or wrong field.
    """
    place = Path(file)
    try:
        if place.stat().st_size > MAX_SPEC_BYTES:
            raise UsageError(f"{place} is larger than {MAX_SPEC_BYTES} bytes; a pipeline is a small JSON file")
        raw = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{place} cannot be read ({error.strerror}); give a pipeline's JSON file") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UsageError(f"{place} is no JSON ({error})") from error
    if not isinstance(raw, dict):
        raise UsageError(f"{place} holds a {type(raw).__name__}; a pipeline is a JSON object with camera, detect, ...")
    known = [item.name for item in fields(PipelineSpec)]
    unknown = sorted(set(raw) - set(known))
    if unknown:
        raise UsageError(f"{place} has the unknown field {unknown[0]!r}; allowed: {', '.join(known)}")
    for name in ("detect", "model"):
        if isinstance(raw.get(name), str):
            raw[name] = [raw[name]]
    if isinstance(raw.get("second"), str):
        raw["second"] = {"artifact": raw["second"]}
    if isinstance(raw.get("camera"), int) and not isinstance(raw["camera"], bool):
        raw["camera"] = str(raw["camera"])
    try:
        spec = from_plain(PipelineSpec, raw, "pipeline")
    except (PlainError, ValueError) as error:
        raise UsageError(f"{place}: {error}") from error
    return _relative_to(spec, place.parent)


def _relative_to(spec: PipelineSpec, base: Path) -> PipelineSpec:
    def place(name: str) -> str:
        return name if not name or Path(name).is_absolute() else str(base / name)

    second = spec.second and replace(
        spec.second, artifact=place(spec.second.artifact), gallery=place(spec.second.gallery)
    )
    camera = str(base / spec.camera) if (base / spec.camera).exists() and not spec.camera.isdigit() else spec.camera
    return replace(
        spec,
        camera=camera,
        detect=tuple(map(place, spec.detect)),
        model=tuple(map(place, spec.model)),
        second=second,
        gallery=place(spec.gallery),
        reid=place(spec.reid),
        report=place(spec.report),
        timeline=place(spec.timeline),
    )


def _second_problems(second: SecondStage) -> list[str]:
    found = []
    if second.max_objects is not None and second.max_objects < 1:
        found.append(f"second.max_objects is {second.max_objects}; 1 or more is allowed")
    if second.every < 1:
        found.append(f"second.every is {second.every}; 1 or more is allowed")
    if second.margin is not None and not 0.1 <= second.margin <= 10:
        found.append(f"second.margin is {second.margin}; 0.1 to 10 is allowed")
    return found


def _below(value: float | None, low: float) -> bool:
    return value is not None and not value >= low
