"""Memory of a camera loop: what detect and track take above the engine alone, and whether it stays flat.

- Resident memory of a process that detects (YOLOX-nano, 4 MB, from EDGECV_TEST_DATA; else the demo's model) and tracks
  on the synthetic camera, less that of a process with the same engine and model alone: at most 150 MB.
- Resident memory over ``--frames`` frames (100,000) of the demo: the median of the last fifth less that of the
  second fifth is under 1 MB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from edgecv import demo
from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.runtime.importer import import_model
from edgecv.runtime.load import load_artifact
from edgecv.runtime.session import open_session
from edgecv.runtime.spec import PipelineSpec

MAX_ABOVE_MB, MAX_DRIFT_MB = 150.0, 1.0


def resident_mb() -> float:
    """Resident memory of this process in 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def engine_alone(artifact: Path) -> float:
    """Memory after 30 inferences on an empty input, nothing else."""
    with load_artifact(artifact, threads=2) as model:
        buffer = model.subject.input_buffer()
        for _ in range(30):
            model.engine.run([buffer])
        return resident_mb()


def loop_memory(artifact: Path, frames: int, *, every: int) -> list[float]:
    """Memory after every so many frames of detect and track on the synthetic camera of 640 x 480."""
    spec = PipelineSpec(
        detect=(str(artifact),),
        track="bytetrack",
        camera="synthetic:size=320x240,objects=6" if frames > 5000 else "synthetic:size=640x480,objects=6",
        frames=frames,
        threads=2,
    )
    readings: list[float] = []
    with open_session(spec) as session:
        session.start()
        while not session.wait(0.05):
            if session.profile.counts.frames >= every * (len(readings) + 1):
                readings.append(resident_mb())
                print(f"  {session.profile.counts.frames} frames  {readings[-1]:.1f} MB", file=sys.stderr, flush=True)
        readings.append(resident_mb())
    return readings


def child(*words: str) -> list[float]:
    """Run this file with ``words``; the numbers that it prints."""
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
    return [float(word) for word in done.stdout.split()]


def main() -> int:
    """Measure in processes of their own, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--engine", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        print(engine_alone(options.engine))
        return 0
    if options.loop:
        print(*loop_memory(options.loop, options.frames, every=max(1, options.frames // 50)))
        return 0
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        model = demo.artifact("onnxruntime")
        file = Path(os.environ.get("EDGECV_TEST_DATA", "-")) / "models/yolox_nano/yolox_nano.onnx"
        if file.is_file():
            contract = InputContract(size=(416, 416), color="bgr", range=(0.0, 255.0), resize="letterbox-topleft")
            family = FamilySpec("detection", tuple(map(str, range(80))), head="yolox")
            model = import_model(file, out=Path(name) / "yolox", name="yolox-nano", family=family, contract=contract)
        alone = median(child("--engine", str(model))[0] for _ in range(3))
        whole = child("--loop", str(model), "--frames", "300")[-1]
        above = whole - alone
        print(
            f"{model.name}: engine alone {alone:.0f} MB, detect and track {whole:.0f} MB: {above:.0f} MB above (<= 150)"
        )
        readings = np.array(child("--loop", str(demo.artifact("onnxruntime")), "--frames", str(options.frames)))
    fifth = len(readings) // 5
    drift = float(np.median(readings[-fifth:]) - np.median(readings[fifth : 2 * fifth]))
    spent = time.monotonic() - started_s
    shown = f"{readings[fifth]:.1f} -> {readings[-1]:.1f} MB, drift {drift:+.2f} MB (< 1)"
    print(f"{options.frames:,} frames: {shown}, {spent:.0f} s")
    return 0 if above <= MAX_ABOVE_MB and drift < MAX_DRIFT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
