"""The report's schema: frozen dataclasses that every renderer and `edgecv compare` read.

A figure that was not measured is absent (None), never 0; each artifact's ``tag`` says how its
figures came about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from edgecv.core.artifact import Chain
from edgecv.core.figures import (
    AccuracyFigures,
    Delegation,
    DropFigures,
    Ladder,
    LatencyFigures,
    LoopFigures,
    MachineFacts,
    SoakFigures,
    Tag,
    Verdict,
)

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class StepFigures:
    """One step of the build: how long it took and what it changed.

    ``kind`` is load, prune, finetune, quantize, export, compile, verify, evaluate or measure;
    ``target`` is "" for a step that all targets share. ``effect`` holds figures by name, such as
    ``macs_before`` and ``macs_after``, ``top1``. ``cached`` says that the store already had it
    (``seconds`` is then what it took when it was done).
    """

    kind: str
    title: str
    key: str
    seconds: float
    cached: bool
    target: str = ""
    effect: dict[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class ArtifactFigures:
    """All that is known of one model file: a target's artifact, or the float reference of its backend.

    ``role`` is ``float`` for the original, unchanged model compiled for the same backend, and
    ``optimized`` for the artifact. ``error`` is set where the target failed; the figures up to the
    failing step are kept. ``failed_step`` names it. ``folder`` is relative to the report.
    """

    target: str
    title: str
    backend: str
    precision: str
    role: Literal["float", "optimized"]
    tag: Tag
    folder: str = ""
    file: str = ""
    file_bytes: int | None = None
    size_ratio: float | None = None
    accuracy: AccuracyFigures | None = None
    drop: DropFigures | None = None
    latency: LatencyFigures | None = None
    delegation: Delegation | None = None
    ladder: Ladder | None = None
    verdicts: tuple[Verdict, ...] = ()
    chain: Chain = field(default_factory=Chain)
    notes: tuple[str, ...] = ()
    failed_step: str = ""
    error: str = ""
    soak: SoakFigures | None = None


@dataclass(frozen=True)
class Report:
    """One run of `edgecv optimize`, or of `edgecv bench` or `edgecv run` (then with ``loop``) on a board.

    ``recipe`` is the resolved recipe as plain values. ``outcome`` is ``pass`` where every budget is
    met, ``fail`` where one is not or a target failed, ``inconclusive`` where a measurement cannot
    tell. Times are UTC in ISO 8601.
    """

    name: str
    edgecv_version: str
    created: str
    outcome: Literal["pass", "fail", "inconclusive"]
    machine: MachineFacts
    artifacts: tuple[ArtifactFigures, ...]
    steps: tuple[StepFigures, ...]
    seconds: float
    recipe: dict[str, Any] = field(default_factory=dict)
    recipe_sha256: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    loop: LoopFigures | None = None
    schema: int = SCHEMA_VERSION
