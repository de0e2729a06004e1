"""The camera loop against its own model, and against ultralytics with the same file.

A YOLO11n with random weights is built from its own yaml by ultralytics, which is installed into an environment of
this run's own, and exported to ONNX and OpenVINO. Then, in turn, several rounds of each:

- back to back: the engine call alone, again and again, on one prepared input;
- edgecv detect + track with all frames in memory, and with the video decoded in the loop;
- ultralytics ``model.track(stream=True)`` on the same video file.

All compute in float32: OpenVINO left to itself would take bfloat16 for ultralytics where the processor has it.
Prints frames per second and the ratios. Exits with 1 below 0.95 (in memory), 0.88 (video) or 1.25 (ultralytics).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from others import environment

from edgecv.core.contract import InputContract
from edgecv.core.frame import Frame
from edgecv.core.recipe import FamilySpec
from edgecv.core.stream import StreamFacts
from edgecv.runtime.importer import import_model
from edgecv.runtime.load import load_artifact
from edgecv.runtime.session import open_session
from edgecv.runtime.spec import PipelineSpec

LIMITS = {"in memory": 0.95, "video": 0.88, "ultralytics": 1.25}
EXPORT = """
import os, sys, shutil
from ultralytics import YOLO
size = int(sys.argv[1])
YOLO("yolo11n.yaml").export(format="onnx", imgsz=size, opset=18, simplify=False)
YOLO("yolo11n.yaml").export(format="openvino", imgsz=size)
"""
TRACK = """
import sys, time, json
import openvino
from ultralytics import YOLO
path, video, size, rounds, frames = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
plain = openvino.Core.compile_model
def compile_model(core, model, device_name=None, config=None, **more):
    return plain(core, model, device_name or "CPU", {**(config or {}), "INFERENCE_PRECISION_HINT": "f32"}, **more)
openvino.Core.compile_model = compile_model
model = YOLO(path, task="detect")
for turn in range(rounds + 1):
    sys.stdin.readline()
    count, started = 0, None
    settings = dict(imgsz=size, tracker="bytetrack.yaml", verbose=False, device="cpu")
    for result in model.track(source=video, stream=True, **settings):
        if started is None:
            started = time.perf_counter()
        count += 1
        if count == frames:
            break
    print(json.dumps((count - 1) / (time.perf_counter() - started)), flush=True)
"""


@dataclass
class Memory:
    """A source whose frames lie in memory."""

    frames: list[np.ndarray]
    index: int = field(default=0)

    def open(self) -> StreamFacts:
        """See `edgecv.core.stream.Source.open`."""
        return StreamFacts("memory", None, 24.0, live=False, frames=len(self.frames))

    def read(self) -> Frame | None:
        """See `edgecv.core.stream.Source.read`."""
        if self.index == len(self.frames):
            return None
        self.index += 1
        return Frame(self.frames[self.index - 1], time.monotonic(), self.index - 1, "memory", self.index / 24.0)

    def close(self) -> None:
        """See `edgecv.core.stream.Source.close`."""


def back_to_back(artifact: Path, runs: int) -> float:
    """Engine calls per second on one prepared input."""
    with load_artifact(artifact, threads=os.cpu_count()) as model:
        buffer = model.subject.input_buffer()
        for _ in range(10):
            model.engine.run([buffer])
        started_s = time.perf_counter()
        for _ in range(runs):
            model.engine.run([buffer])
        return runs / (time.perf_counter() - started_s)


def loop_fps(artifact: Path, video: Path, frames: list[np.ndarray] | None, count: int) -> float:
    """Frames per second of detect and track, from the first to the last finished frame."""
    spec = PipelineSpec(
        detect=(str(artifact),), track="bytetrack", camera=str(video), threads=os.cpu_count(), frames=count
    )
    with open_session(spec, source=None if frames is None else lambda: Memory(frames)) as session:
        session.start()
        session.wait()
        if session.error is not None:
            raise session.error
        return session.profile.mean_fps()


def their_fps(process: Any) -> float:
    """One round of ultralytics in its own process."""
    process.stdin.write("go\n")
    process.stdin.flush()
    while line := process.stdout.readline():
        with contextlib.suppress(ValueError):  # it talks between its figures
            return float(json.loads(line))
    raise SystemExit("ultralytics ended without a figure; run its part by hand to see why")


def measure(engine: str, model: Path, artifact: Path, python: str, options: Any, video: Path) -> bool:
    """All rounds of one engine; whether the limits hold."""
    capture = cv2.VideoCapture(str(video))
    frames: list[np.ndarray] = []
    while len(frames) < options.frames and (read := capture.read())[0]:
        frames.append(read[1])
    command = [python, "-c", TRACK, str(model), str(video), str(options.size), str(options.rounds)]
    command.append(str(len(frames)))
    rows: dict[str, list[float]] = {"back to back": [], "in memory": [], "video": [], "ultralytics": []}
    ratios: dict[str, list[float]] = {name: [] for name in LIMITS}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        their_fps(process)  # the first round warms up
        for _ in range(options.rounds):
            in_turn: dict[str, Callable[[], float]] = {
                "in memory": lambda: loop_fps(artifact, video, frames, len(frames)),
                "video": lambda: loop_fps(artifact, video, None, len(frames)),
                "ultralytics": lambda: their_fps(process),
            }
            base = [back_to_back(artifact, len(frames) // 2)]
            for name, run in in_turn.items():
                rows[name].append(run())
                base.append(back_to_back(artifact, len(frames) // 2))
            rows["back to back"] += base
            # The machine's speed drifts: each figure is held against its neighbours in time.
            ratios["in memory"].append(rows["in memory"][-1] / ((base[0] + base[1]) / 2))
            ratios["video"].append(rows["video"][-1] / ((base[1] + base[2]) / 2))
            ratios["ultralytics"].append(rows["video"][-1] / rows["ultralytics"][-1])
    figures = {name: median(values) for name, values in rows.items()}
    took_ms = 1000 / figures["back to back"]
    print(f"{engine}: model {took_ms:.1f} ms back to back, {len(frames)} frames, {options.rounds} rounds")
    print("  " + "  ".join(f"{name} {value:.1f} fps" for name, value in figures.items()))
    found = {name: median(values) for name, values in ratios.items()}
    for name, ratio in found.items():
        against = "edgecv video against ultralytics" if name == "ultralytics" else f"{name} against back to back"
        print(f"  {against}: {ratio:.2f} (>= {LIMITS[name]}) {'ok' if ratio >= LIMITS[name] else 'MISSED'}", flush=True)
    return all(ratio >= LIMITS[name] for name, ratio in found.items())


def main() -> int:
    """Build the model, then measure each engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=640, help="network input; smaller is faster")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--frames", type=int, default=60, help="frames of a round")
    parser.add_argument("--video", type=Path, help="default: videos/people-corridor.mp4 of EDGECV_TEST_DATA")
    options = parser.parse_args()
    video = options.video or Path(os.environ["EDGECV_TEST_DATA"]) / "videos/people-corridor.mp4"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.update({"YOLO_CONFIG_DIR": name, "YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0"})
        python = environment(folder / "venv", "ultralytics", "ultralytics-thop", "lap", "onnxslim")
        export = [python, "-c", EXPORT, str(options.size)]
        subprocess.run(export, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        contract = InputContract(size=(options.size, options.size), resize="letterbox")
        family = FamilySpec("detection", tuple(map(str, range(80))), head="yolo")
        holds = True
        models = {"onnxruntime": folder / "yolo11n.onnx", "openvino": folder / "yolo11n_openvino_model"}
        for engine, model in models.items():
            file = model if model.is_file() else next(model.glob("*.xml"))
            artifact = import_model(file, out=folder / engine, name="yolo11n", family=family, contract=contract)
            holds &= measure(engine, model, artifact, python, options, video)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
