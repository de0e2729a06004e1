"""Give the demo's artifacts a golden picture, so that `edgecv verify edgecv/demo/onnxruntime` proves something.

One small picture, because the demo travels with every installation. What each engine has to give is what ONNX Runtime
makes of the float graph. Run after train_demo_detector.py; the same artifacts give the same files. Needs the host half.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecv import backends
from edgecv.core.artifact import file_entries, read_manifest, write_manifest
from edgecv.measure.golden import Golden, decoded, save_golden
from edgecv.measure.ladder import Outputs
from edgecv.runtime.prove import GOLDEN, prove
from edgecv.vision.image import preprocess
from edgecv.vision.scenes import Scene, SceneSpec

ROOT = Path(__file__).resolve().parent.parent
SPEC = SceneSpec(size=(60, 80), objects=3, seed=11, noise=0.0)
FORM = "float ONNX"


def golden_of(demo: Path) -> Golden:
    """A picture of the synthetic camera, and the answer of the ONNX file to it."""
    folder = demo / "onnxruntime"
    manifest = read_manifest(folder)
    pictures = (Scene(SPEC).frame(0).image,)
    inputs = np.stack([preprocess(picture, manifest.contract) for picture in pictures])
    engine = backends.get("onnxruntime").load(folder / manifest.model, options={}, threads=1)
    try:
        rows = [engine.run([row[None]]) for row in inputs]
    finally:
        engine.close()
    outputs = Outputs(FORM, tuple(np.concatenate(column) for column in zip(*rows, strict=True)))
    return Golden(pictures, inputs, outputs, decoded(outputs, pictures, manifest.family, manifest.contract))


def add_golden(demo: Path) -> None:
    """Write the golden picture into each artifact below ``demo``, and have it prove itself."""
    golden = golden_of(demo)
    for path in sorted(demo.glob("*/manifest.json")):
        folder = path.parent
        manifest = read_manifest(folder)
        model = tuple(entry for entry in manifest.files if entry.path != GOLDEN)
        save_golden(folder / GOLDEN, golden)
        files = (*model, *file_entries(folder, [GOLDEN]))
        write_manifest(folder, replace(manifest, files=files))
        proof = prove(folder)
        rungs = {} if proof.ladder is None else {rung.name: rung.outcome for rung in proof.ladder.rungs}
        size = sum(entry.bytes for entry in files)
        print(f"{folder.name}: {size} bytes, {rungs} {proof.skipped}")
        if not proof.holds or proof.ladder is None:
            raise SystemExit(f"{folder} does not prove itself")


def main() -> int:
    """All artifacts of the demo."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--demo", type=Path, default=ROOT / "edgecv" / "demo")
    add_golden(options.parse_args().demo)
    return 0


if __name__ == "__main__":
    sys.exit(main())
