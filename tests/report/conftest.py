"""Reports as real runs give them: passing, failing, undecided, hostile, empty and large."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import pytest

from edgecv.core.artifact import Chain
from edgecv.core.figures import (
    AccuracyFigures,
    Delegation,
    DropFigures,
    Interval,
    Ladder,
    LatencyFigures,
    MachineFacts,
    Percentiles,
    Rung,
    Verdict,
)
from edgecv.report.outcome import overall_outcome
from edgecv.report.schema import ArtifactFigures, Report, StepFigures

HOSTILE = "<script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=1>&amp;|`@team`\x1b[31m\u202e\x00[x](http://a.b)"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def chain(target: str) -> Chain:
    return Chain(digest("recipe"), digest("weights"), digest("calibration"), digest("graph"), digest(target))


def percentiles(p50: float, *, samples: int = 1024) -> Percentiles:
    p99 = p50 * 1.31 if samples >= 1000 else None
    return Percentiles(p50, p50 * 1.06, p50 * 1.12, p99, p50 * 2.2, p50 * 1.02, p50 * 0.07, samples)


def latency(
    p50: float, *, sha256: str = "", invalid: str = "", quick: bool = False, threads: int = 2
) -> LatencyFigures:
    samples = 128 if quick else 1024
    end_to_end = percentiles(p50, samples=samples)
    return LatencyFigures(
        model=percentiles(p50 * 0.62, samples=samples),
        with_copies=percentiles(p50 * 0.71, samples=samples),
        end_to_end=end_to_end,
        paced=percentiles(p50 * 1.15, samples=samples),
        paced_fps=30.0,
        deadline_misses=0,
        warmup_runs=41,
        seconds=61.2,
        quick=quick,
        threads=threads,
        file_sha256=sha256,
        invalid=invalid,
    )


def accuracy(value: float, *, samples: int = 360) -> AccuracyFigures:
    half = 1.96 * math.sqrt(max(value * (1 - value), 1e-5) / samples)
    interval = Interval(max(0.0, value - half), min(1.0, value + half))
    return AccuracyFigures("top1", value, samples, interval, {"top5": min(1.0, value + 0.015)}, (), digest("file"))


def ladder(*, broken: bool = False) -> Ladder:
    rungs = (
        Rung("float ONNX", "float torch", 64, 118.4, 1.9e-6, 1.0, 0.9833, 60.0, "pass"),
        Rung("Q/DQ torch", "float torch", 64, 33.12, 0.412, 0.9944, 0.9806, 20.0, "pass"),
        Rung("Q/DQ ONNX", "Q/DQ torch", 64, math.inf, 0.0, 1.0, 0.9806, 30.0, "pass"),
        Rung("compiled", "Q/DQ torch", 64, 44.7, 0.061, 0.9972, 0.9806, 30.0, "pass"),
        Rung("device", "compiled", 0, None, None, None, None, 30.0, "not-checked"),
    )
    if not broken:
        return Ladder(rungs, None)
    bad = replace(rungs[3], sqnr_db=6.31, max_abs_error=9.81, agreement=0.7417, metric=0.7389, outcome="fail")
    return Ladder((*rungs[:3], replace(bad, blame="compiler"), rungs[4]), "compiled")


def verdicts(p95: float, size_mb: float, drop: float, drop_outcome: str = "pass") -> tuple[Verdict, ...]:
    return (
        Verdict("accuracy.top1.max_drop", 0.01, drop, "share", drop_outcome, "interval -0.0028 to 0.0083"),
        Verdict("latency.p95_ms", 5.0, p95, "ms", "pass" if p95 <= 5 else "fail", "1024 runs"),
        Verdict("size_mb", 0.5, size_mb, "MB", "pass" if size_mb <= 0.5 else "fail", f"{size_mb * 1e6:.0f} bytes"),
    )


def floating(target: str, title: str, backend: str, p50: float | None) -> ArtifactFigures:
    times = None if p50 is None else latency(p50, sha256=digest(target + "float"))
    return ArtifactFigures(
        target, title, backend, "fp32", "float", "measured", f"{target}/float", "model.bin", 812_544, 1.0,
        accuracy(0.9861), None, times, None, None, (), chain(target + "float"),
    )  # fmt: skip


def quantized(target: str, title: str, backend: str, p50: float, value: float = 0.9833) -> ArtifactFigures:
    drop = 0.9861 - value
    figures = DropFigures(drop, Interval(drop - 0.0056, drop + 0.0055), 0.01, "pass")
    return ArtifactFigures(
        target=target, title=title, backend=backend, precision="int8", role="optimized", tag="measured",
        folder=f"{target}", file="model.bin", file_bytes=214_312, size_ratio=0.2637544, accuracy=accuracy(value),
        drop=figures, latency=latency(p50, sha256=digest(target)),
        delegation=Delegation(0.9583, 23, 24, "int8 kernels"),
        ladder=ladder(), verdicts=verdicts(p50 * 1.12, 0.214312, drop), chain=chain(target),
    )  # fmt: skip


def deferred() -> ArtifactFigures:
    return ArtifactFigures(
        "jetson-orin-nano", "Jetson Orin Nano", "tensorrt", "int8", "optimized", "deferred",
        "jetson-orin-nano", "model.onnx", 301_222, None, verdicts=(
            Verdict("latency.p95_ms", 5.0, None, "ms", "not-checked", "the engine is built on the device"),
        ), chain=chain("jetson"), notes=("TensorRT builds its engine on its own GPU: run `edgecv build` there",),
    )  # fmt: skip


def emulated() -> ArtifactFigures:
    made = quantized("raspberry-pi-5", "Raspberry Pi 5", "litert", 1.0, 0.9806)
    why = "not timed: this machine is not the board"
    unchecked = replace(made.verdicts[1], value=None, outcome="not-checked", why=why)
    return replace(made, latency=None, tag="emulated", verdicts=(made.verdicts[0], unchecked, made.verdicts[2]))


STEPS = (
    StepFigures("load", "Load the model", digest("load"), 0.83, True, "", {"params": 203_018, "top1": 0.9861}),
    StepFigures(
        "prune", "Prune: taylor, 2.0x", digest("prune"), 11.4, True, "",
        {"macs_before": 5_812_224, "macs_after": 2_894_336, "params_before": 203_018, "params_after": 98_114,
         "top1_before": 0.9861, "top1_after": 0.9111},
    ),
    StepFigures("finetune", "Fine-tune: 8 epochs", digest("finetune"), 96.2, True, "",
                {"top1_before": 0.9111, "top1_after": 0.9861, "best_epoch": 7}),
    StepFigures("quantize", "Quantise: qat, 3 epochs", digest("quantize"), 71.9, False, "", {"top1": 0.9833}),
    StepFigures("export", "Export", digest("export"), 6.2, False, "", {"nodes": 61}),
    StepFigures("compile", "Compile", digest("c1"), 0.4, False, "host-onnxruntime", {"bytes": 214_312}),
    StepFigures("compile", "Compile", digest("c2"), 1.9, False, "host-openvino", {"bytes": 214_312}),
    StepFigures("measure", "Measure", digest("m1"), 63.0, False, "host-onnxruntime", {"runs": 1024}),
)  # fmt: skip

MACHINE = MachineFacts(
    "Linux 6.1", "x86_64", "Intel(R) Xeon(R) Processor @ 2.20GHz", 2, 7958, "3.11.2",
    {"onnxruntime": "1.31.1", "openvino": "2026.4.1", "litert": "2.3.0"},
)  # fmt: skip


def report_of(artifacts: tuple[ArtifactFigures, ...], **more: object) -> Report:
    values: dict[str, object] = {
        "name": "digits", "edgecv_version": "0.1.0", "created": "2026-11-20T14:03:11Z",
        "outcome": overall_outcome(artifacts), "machine": MACHINE, "artifacts": artifacts, "steps": STEPS,
        "seconds": 312.4, "recipe": {"recipe": 1, "name": "digits", "budgets": {"size_mb": 0.5}},
        "recipe_sha256": digest("recipe"), "data": {"eval": {"kind": "sklearn-digits", "samples": 360}},
        "notes": ("The calibration set has 128 pictures, at least 11 a class",),
    }  # fmt: skip
    return Report(**{**values, **more})  # type: ignore[arg-type]


def base_artifacts() -> tuple[ArtifactFigures, ...]:
    return (
        floating("host-onnxruntime", "This machine, ONNX Runtime", "onnxruntime", 0.912),
        quantized("host-onnxruntime", "This machine, ONNX Runtime", "onnxruntime", 0.3712),
        floating("host-openvino", "This machine, OpenVINO", "openvino", 0.744),
        quantized("host-openvino", "This machine, OpenVINO", "openvino", 0.2514, 0.9819),
        emulated(),
        deferred(),
    )


@pytest.fixture
def passing() -> Report:
    """Every budget met; a board that is not timed here and a deferred one."""
    return report_of(base_artifacts())


@pytest.fixture
def failing() -> Report:
    """A missed time budget, a broken ladder and a target whose conversion failed."""
    made = list(base_artifacts())
    made[1] = replace(made[1], verdicts=verdicts(6.104, 0.214312, 0.0028), latency=latency(5.45))
    made[3] = replace(made[3], ladder=ladder(broken=True))
    error = "ToolchainError: coremltools refused the graph\n" + "\n".join(f"  frame {i}" for i in range(12))
    iphone = ArtifactFigures(
        "iphone-15", "iPhone 15", "coreml", "int8", "optimized", "estimated", failed_step="compile", error=error
    )
    return report_of((*made, iphone))


@pytest.fixture
def inconclusive() -> Report:
    """An interval that holds the limit, and times of a throttled run."""
    made = list(base_artifacts())
    drop = DropFigures(0.0075, Interval(-0.0028, 0.0178), 0.01, "inconclusive", 6120)
    made[1] = replace(made[1], drop=drop, verdicts=verdicts(0.4157, 0.214312, 0.0075, "inconclusive"))
    made[3] = replace(made[3], latency=latency(0.2514, invalid="throttled: 12 of 61 samples below the base clock"))
    return report_of(tuple(made))


@pytest.fixture
def hostile() -> Report:
    """Text that would run, break tables or move a cursor wherever it is not escaped."""
    item = quantized(HOSTILE, HOSTILE, HOSTILE, 0.4)
    item = replace(
        item, precision=HOSTILE, notes=(HOSTILE,), failed_step=HOSTILE, error=HOSTILE + "\n```\n" + HOSTILE,
        verdicts=(Verdict(HOSTILE, 1.0, 2.0, HOSTILE, "fail", HOSTILE),), chain=Chain(HOSTILE, HOSTILE),
        delegation=Delegation(0.5, 1, 2, HOSTILE), accuracy=replace(accuracy(0.9), metric=HOSTILE),
        ladder=Ladder((Rung(HOSTILE, HOSTILE, 1, -math.inf, 0.1, None, None, None, "fail", HOSTILE),), HOSTILE),
    )  # fmt: skip
    plotted = replace(quantized(HOSTILE + "2", HOSTILE, HOSTILE, 0.4), title=HOSTILE)
    step = StepFigures(HOSTILE, HOSTILE, HOSTILE, 1.0, True, HOSTILE, {HOSTILE: HOSTILE, HOSTILE + "_before": 1.0})
    machine = MachineFacts(HOSTILE, HOSTILE, HOSTILE, 1, 1, HOSTILE, {HOSTILE: HOSTILE}, HOSTILE)
    return report_of(
        (plotted, item), name=HOSTILE, edgecv_version=HOSTILE, created=HOSTILE, machine=machine, steps=(step,),
        recipe={HOSTILE: [HOSTILE]}, recipe_sha256=HOSTILE, data={HOSTILE: HOSTILE}, notes=(HOSTILE,),
    )  # fmt: skip


@pytest.fixture
def empty() -> Report:
    """A run that ended before it made anything."""
    return report_of((), steps=(), recipe={}, data={}, notes=(), seconds=0.0)


@pytest.fixture
def many() -> Report:
    """Thirty artifacts over three powers of ten of time."""
    made = []
    for i in range(30):
        item = quantized(f"board-{i:02d}", f"Board {i}", "litert", 0.4 * 1.27**i, 0.9 + 0.085 * ((i * 7) % 30) / 30)
        made.append(replace(item, verdicts=verdicts(0.4, 0.2, 0.001)))
    return report_of(tuple(made))


@pytest.fixture
def soaked() -> Report:
    """Ten minutes under load on a board that throttles."""
    from tests.report.test_soak import report

    return report()


@pytest.fixture(params=["passing", "failing", "inconclusive", "hostile", "empty", "many", "soaked"])
def any_report(request: pytest.FixtureRequest) -> Report:
    report: Report = request.getfixturevalue(request.param)
    return report
