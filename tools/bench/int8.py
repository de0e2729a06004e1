"""Float against int8 on every engine of this machine: latency side by side in one run, and file sizes.

Models: digits (bundled), CIFAR-10 ResNet-20 and mobilenet_v3_small (random weights, ImageNet samples) where the
folder EDGECV_TEST_DATA has the data. Float and int8 of one engine are timed in turn, run by run, so that what else
the machine does falls on both. Absolute times belong to this machine; the ratio is the figure.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from edgecv.runtime.load import Model, load_artifact

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPES = ROOT / "recipes" / "classification"
BUDGET_FAILED = 3  # random weights have no accuracy to keep: the ladder may fail, the files are as large and as fast
ENGINES = ("host-onnxruntime", "host-openvino", "host-litert")


@dataclass(frozen=True)
class Case:
    """One model: its recipe, and the settings that make it quick to build."""

    name: str
    recipe: Path
    sets: tuple[str, ...]
    quantize: str


def cases(data: Path, folder: Path) -> list[Case]:
    """The models that can be built here; ``folder`` takes the lists that split the ImageNet samples in two."""
    calibration = "data.calibration={source: {kind: sklearn-digits, split: train}, samples: 128}"
    found = [Case("digits", RECIPES / "digits.yaml", (calibration,), "ptq")]
    if data.is_dir():
        found.append(Case("ResNet-20", RECIPES / "cifar10-resnet20.yaml", (), "ptq"))
        samples = data / "imagenet-samples"
        rows = (samples / "labels.csv").read_text(encoding="utf-8").splitlines()
        parts = {"eval": rows[1:129], "calibration": rows[129:257]}
        for name, lines in parts.items():
            (folder / f"{name}.csv").write_text("\n".join([rows[0], *lines]) + "\n", encoding="utf-8")
        column = rows[0].split(",")[1]
        listed = f"kind: csv, root: {samples}, label_column: {column}"
        sets = (
            "model.weights=null",
            f"data.eval={{{listed}, path: {folder}/eval.csv}}",
            f"data.calibration={{source: {{{listed}, path: {folder}/calibration.csv}}, samples: 128}}",
        )
        found.append(Case("mobilenet_v3_small", RECIPES / "mobilenet-v3-small.yaml", sets, "ptq"))
    return found


def built(case: Case, folder: Path, *, int8: bool) -> Path:
    """Build the case for every engine; returns the folder of the artifacts."""
    out = folder / f"{case.name}-{'int8' if int8 else 'float'}"
    steps = f"steps=[{{quantize: {{method: {case.quantize}}}}}]" if int8 else "steps=[]"
    sets = [
        f"targets=[{', '.join(ENGINES)}]",
        steps,
        "budgets={}",
        "measure.protocol=smoke",
        "overrides=[]",
        *case.sets,
    ]
    command = [sys.executable, "-m", "edgecv", "optimize", str(case.recipe), "--out", str(out)]
    command += ["--cache", str(folder / "cache")]
    for item in sets:
        command += ["--set", item]
    code = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
    if code not in (0, BUDGET_FAILED):
        raise SystemExit(f"building {case.name} ended with exit code {code}; its log: {out / 'edgecv.log'}")
    return out


def paired_ms(models: list[Model], *, runs: int) -> list[float]:
    """Median time of the engine call of each model, taken in turn."""
    inputs = []
    for model in models:
        buffer = model.subject.input_buffer()
        height, width = model.manifest.contract.size
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        model.subject.run(picture, buffer)
        inputs.append(buffer)
    times: list[list[float]] = [[] for _ in models]
    for turn in range(runs + runs // 10):
        for index, model in enumerate(models):
            started_s = time.perf_counter()
            model.engine.run([inputs[index]])
            if turn >= runs // 10:
                times[index].append((time.perf_counter() - started_s) * 1000)
    return [median(found) for found in times]


def main() -> int:
    """Build, time, print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="timed runs of each file")
    options = parser.parse_args()
    data = Path(
        os.environ.setdefault("EDGECV_DATA", os.environ.get("EDGECV_TEST_DATA", str(ROOT.parent / "shared/data")))
    )
    print(
        f"{'model':20} {'engine':18} {'float ms':>9} {'int8 ms':>9} {'speed-up':>9} "
        f"{'float kB':>9} {'int8 kB':>9} {'size':>6}"
    )
    with tempfile.TemporaryDirectory() as name:
        for case in cases(data, Path(name)):
            folders = [built(case, Path(name), int8=int8) for int8 in (False, True)]
            for engine in ENGINES:
                models = [load_artifact(folder / engine) for folder in folders]
                one, two = paired_ms(models, runs=options.runs)
                sizes = [model.manifest.model_bytes for model in models]
                for model in models:
                    model.close()
                print(
                    f"{case.name:20} {engine:18} {one:9.3f} {two:9.3f} {one / two:8.2f}x {sizes[0] / 1e3:9.1f} "
                    f"{sizes[1] / 1e3:9.1f} {sizes[1] / sizes[0]:6.0%}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
