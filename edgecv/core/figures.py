"""Figures that are measured and reported: each is a frozen message with its units in its names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Tag = Literal["measured", "emulated", "estimated", "deferred"]
Outcome = Literal["pass", "fail", "inconclusive", "not-checked"]


@dataclass(frozen=True)
class Interval:
    """A confidence interval ``[low, high]`` at ``level`` (0.95 = 95 %)."""

    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True)
class AccuracyFigures:
    """A task metric of one model file on one evaluation set.

    ``value`` is in the metric's own unit (top-1: a share 0..1). ``per_sample`` holds one score per
    sample in the evaluation set's order, so that two files can be compared in pairs; it is kept in
    the store, not in the report. ``extras`` are further metrics by name.
    """

    metric: str
    value: float
    samples: int
    interval: Interval | None = None
    extras: dict[str, float] = field(default_factory=dict)
    per_sample: tuple[float, ...] = ()
    file_sha256: str = ""


@dataclass(frozen=True)
class DropFigures:
    """``reference - candidate`` of a metric, judged by a paired bootstrap over samples with so many ``resamples``."""

    drop: float
    interval: Interval
    max_drop: float | None
    outcome: Outcome
    samples_to_decide: int | None = None
    resamples: int = 10_000


@dataclass(frozen=True)
class Percentiles:
    """Times in milliseconds. A percentile that the sample is too small for is None."""

    p50_ms: float
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float
    mean_ms: float
    jitter_ms: float
    samples: int


@dataclass(frozen=True)
class LoopEvent:
    """Something that happened in a camera loop or a measurement: ``at_s`` seconds after its start."""

    at_s: float
    kind: str
    text: str


@dataclass(frozen=True)
class LatencyFigures:
    """Latency at batch 1 on real frames.

    ``model`` is the engine call alone, ``with_copies`` adds quantise, copy in and copy out,
    ``end_to_end`` is picture to decoded result; all back to back. ``paced`` is end to end at
    ``paced_fps`` with ``deadline_misses`` of its frames late. ``quick`` marks the short protocol.
    ``invalid`` says why the figures must not be used (throttled, under-voltage), or is empty; ``events`` say when
    that began and ended.
    """

    model: Percentiles
    with_copies: Percentiles
    end_to_end: Percentiles
    paced: Percentiles | None
    paced_fps: float | None
    deadline_misses: int | None
    warmup_runs: int
    seconds: float
    quick: bool
    threads: int
    file_sha256: str = ""
    invalid: str = ""
    events: tuple[LoopEvent, ...] = ()


@dataclass(frozen=True)
class PowerFigures:
    """Power and energy of a run, by the sensor of this name; ``covers`` says what its figures are of.

    ``joules`` were measured in ``seconds`` (less than the run where the sensor did not always answer). ``idle_w``
    is the mean power before the run, None where it was not measured. Energy per frame is gross, and above idle.
    ``rails_w`` are means of the rails that the sensor tells apart; they may feed one another.
    """

    sensor: str
    covers: str
    samples: int
    seconds: float
    joules: float
    mean_w: float
    peak_w: float
    idle_w: float | None = None
    mj_per_frame: float | None = None
    mj_per_frame_above_idle: float | None = None
    rails_w: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SoakSecond:
    """About one second of a soak; ``at_s`` is its end, from the start of the soak.

    ``p95_ms`` is of the frames of this second, None from fewer than 20. ``temperature_c`` is that of the hottest
    zone, ``clock_mhz`` of the fastest CPU, ``fan`` the strongest fan's share of full power. ``flags`` held the
    machine back.
    """

    at_s: float
    fps: float
    p50_ms: float
    p95_ms: float | None
    temperature_c: float | None = None
    clock_mhz: float | None = None
    gpu_mhz: float | None = None
    fan: float | None = None
    watts: float | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class SoakFigures:
    """One model file, picture to decoded result, run for so long that the board gets as hot as it will.

    ``asked_s`` is how long it should have run, ``paced_fps`` the camera rate (None: back to back); frames that came
    while one was in work are ``dropped``. ``first_fps`` is the median rate of the first ``first_s`` seconds,
    ``sustained_fps`` that of the last quarter, ``kept`` their ratio. ``throttled_s`` is when the board was first
    held back or slow, None if never, with the reason in ``throttled_why``. Throttling does not void a soak: it is
    what a soak looks for.
    """

    seconds: float
    asked_s: float
    frames: int
    dropped: int
    paced_fps: float | None
    first_s: float
    first_fps: float
    sustained_fps: float
    kept: float
    end_to_end: Percentiles
    sustained: Percentiles
    throttled_s: float | None
    throttled_why: str
    series: tuple[SoakSecond, ...]
    events: tuple[LoopEvent, ...] = ()
    power: PowerFigures | None = None
    max_temperature_c: dict[str, float] = field(default_factory=dict)
    threads: int = 0
    file_sha256: str = ""
    ended: str = ""


@dataclass(frozen=True)
class Delegation:
    """How much of the compiled graph runs accelerated (share 0..1 of executed nodes)."""

    share: float
    accelerated_nodes: int
    total_nodes: int
    what: str


ORIGINAL_TORCH, FLOAT_TORCH, FLOAT_ONNX, QDQ_TORCH = "original torch", "float torch", "float ONNX", "Q/DQ torch"
"""Rungs before compilation; the original is there where the float network was made from it by pruning or training."""


@dataclass(frozen=True)
class Rung:
    """One rung of the verification ladder: this form of the model against the one before it.

    ``sqnr_db`` is ``10 log10(power of the reference / power of the difference)``, infinite when
    the two are equal; ``max_abs_error`` is in output units; ``agreement`` is the share of samples
    with the same decoded answer; ``metric`` is the task metric on the same samples. A rung that only
    the device can climb has no figures (None).
    """

    name: str
    against: str
    samples: int
    sqnr_db: float | None
    max_abs_error: float | None
    agreement: float | None
    metric: float | None
    min_sqnr_db: float | None
    outcome: Outcome
    blame: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """Why a rung broke, by name: ``what`` is ``found`` and should be ``expected``.

    ``rung`` is what is to blame (pre-processing, graph, quantisation, compiler, decode, metric); ``evidence`` says how
    that was computed. ``found`` and ``expected`` are "" where there is no single value.
    """

    rung: str
    what: str
    found: str
    expected: str
    evidence: str = ""

    @property
    def text(self) -> str:
        """One line: what, found and expected."""
        if not (self.found or self.expected):
            return self.what
        return f"{self.what}: found {self.found or 'nothing'}, expected {self.expected or 'nothing'}"


@dataclass(frozen=True)
class Ladder:
    """The rungs of one target, in order, and the first that broke (None when all hold), with its causes by name."""

    rungs: tuple[Rung, ...]
    first_broken: str | None
    diagnosis: tuple[Diagnosis, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """One budget of the recipe held against one figure of one artifact."""

    budget: str
    limit: float
    value: float | None
    unit: str
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True)
class MachineFacts:
    """The machine that a figure was measured on; ``power_mode`` is the Jetson's, "" elsewhere."""

    system: str
    machine: str
    cpu: str
    cores: int
    memory_mb: int
    python: str
    engines: dict[str, str] = field(default_factory=dict)
    board: str = ""
    power_mode: str = ""


@dataclass(frozen=True)
class StageFigures:
    """The times of one stage of a camera loop."""

    name: str
    times: Percentiles


@dataclass(frozen=True)
class SinkFigures:
    """What became of the results given to one sink; ``error`` is its last failure."""

    name: str
    written: int
    dropped: int
    failed: int
    error: str = ""


@dataclass(frozen=True)
class LoopFigures:
    """One run of the camera loop.

    ``fps`` is finished frames over the time from the first to the last one; ``age`` is from capture to
    the end of the pipeline, None where frames have no real capture time (a file read at full speed).
    ``stages`` are in the order of the pipeline; ``end_to_end`` is from the start of pre-processing.
    ``camera`` are its counters by name. ``invalid`` says why the times must not be used as a
    measurement (throttled, under-voltage), or is empty.
    """

    camera_name: str
    frames: int
    seconds: float
    fps: float
    policy: str
    age: Percentiles | None
    end_to_end: Percentiles | None
    stages: tuple[StageFigures, ...]
    camera: dict[str, int]
    sinks: tuple[SinkFigures, ...] = ()
    failed: int = 0
    stale: int = 0
    deadline_ms: float | None = None
    deadline_misses: int | None = None
    levels: dict[str, int] = field(default_factory=dict)
    temperature_c: dict[str, float] = field(default_factory=dict)
    peak_rss_mb: float | None = None
    power: PowerFigures | None = None
    events: tuple[LoopEvent, ...] = ()
    events_seen: int = 0
    ended: str = ""
    invalid: str = ""
