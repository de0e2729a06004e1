"""A small network of any architecture through the whole line, from its recipe to four engines and the camera loop.

Weights are random or hardly trained, so no accuracy means anything: what is proven is that the architecture can be
pruned, tuned, quantised and compiled, and that each engine computes what the quantised graph computes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.core.figures import Rung
from edgecv.measure.ladder import COMPILER_MIN_DB
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report

ENGINES = ("host-onnxruntime", "host-openvino", "host-litert")
TARGETS = (*ENGINES, "iphone-15")
NOISE_MARGIN_DB = 3.0
"""Random weights make rounding noise grow from layer to layer more than trained ones do, so the ladder's own 20 dB for
compilers may be out of reach. What holds for all weights: an engine that computes the Q/DQ graph differs from it in
single rounding steps, which is less than quantisation itself changed."""


@dataclass(frozen=True)
class Line:
    """A finished run."""

    folder: Path
    code: int
    report: Report

    def effect(self, kind: str) -> dict[str, Any]:
        """What the first step of this kind did."""
        return next(dict(step.effect) for step in self.report.steps if step.kind == kind)

    def made(self, target: str) -> ArtifactFigures:
        """The optimised artifact of a target."""
        return next(item for item in self.report.artifacts if item.target == target and item.role == "optimized")


def run_line(folder: Path, recipe: dict[str, Any]) -> Line:
    """`edgecv optimize` of ``recipe``, by default for `TARGETS` and measured for a moment."""
    whole = {"recipe": 1, "name": "line", "targets": list(TARGETS), "budgets": {}, "measure": {"protocol": "smoke"}}
    path = folder / "line.yaml"
    path.write_text(yaml.safe_dump({**whole, **recipe}), encoding="utf-8")
    code = cli.main(["optimize", str(path), "--out", str(folder / "out"), "--cache", str(folder / "cache")])
    return Line(folder, code, read_report(folder / "out"))


def rungs_of(artifact: ArtifactFigures) -> dict[str, Rung]:
    """The verification ladder of an artifact by the names of its rungs."""
    assert artifact.ladder is not None, artifact.error
    return {rung.name: rung for rung in artifact.ladder.rungs}


def check_line(line: Line, *, pruned: bool = True) -> None:
    """Every target has its int8 file, and every engine that runs here computes what the quantised graph computes."""
    if pruned:
        cut = line.effect("prune")
        assert float(cut["macs_after"]) < float(cut["macs_before"])
    for target in TARGETS:
        artifact = line.made(target)
        assert artifact.error == ""
        assert read_manifest(line.folder / "out" / target).precision == "int8"
        if target not in ENGINES:
            continue
        rungs = rungs_of(artifact)
        compiled, quantised = rungs[f"compiled {artifact.backend}"].sqnr_db, rungs["Q/DQ torch"].sqnr_db
        assert compiled is not None
        assert quantised is not None
        told = {name: (rung.outcome, rung.sqnr_db) for name, rung in rungs.items()}
        assert compiled >= min(COMPILER_MIN_DB, quantised + NOISE_MARGIN_DB), f"{target}: {told}"


def loop_lines(line: Line, target: str = "host-onnxruntime", *, frames: int = 4) -> list[dict[str, Any]]:
    """What the camera loop says of ``frames`` pictures of the synthetic camera; it draws them into a video, too."""
    said, film = line.folder / f"{target}.jsonl", line.folder / f"{target}.mp4"
    words = ["run", "--model", str(line.folder / "out" / target), "--camera", "synthetic:", "--frames", str(frames)]
    words += ["--policy", "every", "--quiet", "--sink", f"jsonl={said}", "--sink", f"video={film}"]
    assert cli.main(words) == 0
    assert film.stat().st_size > 0
    return [json.loads(text) for text in said.read_text(encoding="utf-8").splitlines()]
