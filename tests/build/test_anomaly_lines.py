"""Inspection by other means than a memory of patches, each by its ready recipe through the whole line, on few pictures.

What is proven beside the line itself: the int8 files tell defects from good surfaces about as well as float does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader
from edgecv.runtime.load import load_artifact
from tests.lines import ENGINES, Line, check_line, loop_lines, run_line

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("inspectors")]

JUDGED = 100
PRUNE = {"importance": "magnitude", "ratio": 0.2, "round_to": 4, "repair": False}


@dataclass(frozen=True)
class Inspector:
    """A ready recipe, the steps between its weights and int8, and the least AUROC of the files."""

    recipe: str
    steps: tuple[dict[str, Any], ...]
    least: float
    surface: str = "woven"


FIT = {"fit": {"samples": 64}}
INSPECTORS = {
    "student": Inspector(
        "scenes-student",
        (
            FIT,
            {"prune": {**PRUNE, "protect": ["teacher*"]}},
            {"finetune": {"epochs": 2, "lr": 2.0e-3, "batch_size": 8}},
            FIT,
        ),
        0.9,
    ),
    "reconstruction": Inspector(
        "scenes-reconstruction",
        (
            FIT,
            {"prune": {**PRUNE, "ratio": 0.1, "round_to": 2}},
            {"finetune": {"epochs": 2, "lr": 2.0e-3, "batch_size": 8}},
            FIT,
        ),
        0.95,
        "wood",
    ),
    "padim": Inspector("scenes-padim", ({"prune": {**PRUNE, "ratio": 0.1, "round_to": 2}}, FIT), 0.9),
}


@pytest.fixture(scope="module", params=INSPECTORS)
def inspector(request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Each of them with its finished run."""
    told = INSPECTORS[request.param]
    recipe = yaml.safe_load((root / f"recipes/anomaly/{told.recipe}.yaml").read_text(encoding="utf-8"))
    if recipe["model"].get("weights"):
        recipe["model"]["weights"] = str(root / "recipes/anomaly" / recipe["model"]["weights"])
    recipe["data"]["train"]["limit"] = 64
    recipe["data"]["eval"]["limit"] = JUDGED
    recipe["data"]["calibration"]["samples"] = 16
    quantize = next(step for step in recipe["steps"] if "quantize" in step)
    recipe["steps"] = [*told.steps, quantize]
    recipe["budgets"] = {"accuracy": {"metric": "auroc", "min": 0.5}}
    del recipe["targets"], recipe["measure"]
    return told, run_line(tmp_path_factory.mktemp(request.param), recipe)


def test_an_inspector_goes_through_every_step(inspector: tuple[Inspector, Line]) -> None:
    told, line = inspector
    assert line.code == 0, line.report.outcome
    check_line(line)
    for target in ENGINES:
        made = line.made(target)
        assert made.accuracy is not None
        assert (made.accuracy.metric, made.accuracy.samples) == ("auroc", JUDGED)
        assert made.accuracy.value >= told.least
        assert made.accuracy.extras["pro"] > 0.8
        assert made.ladder is not None
        assert made.ladder.first_broken is None


def test_int8_costs_little(inspector: tuple[Inspector, Line]) -> None:
    """Of the rungs with a metric: Q/DQ and compiled files are at most 0.02 from the tuned float network."""
    _, line = inspector
    for target in ENGINES:
        ladder = line.made(target).ladder
        assert ladder is not None
        known = [rung.metric for rung in ladder.rungs if rung.metric is not None and rung.name != "original torch"]
        assert len(known) >= 2
        assert max(known) - min(known) <= 0.02, ladder


def test_the_map_is_highest_at_the_defect_alike_everywhere(inspector: tuple[Inspector, Line], root: Path) -> None:
    """A dark or bright mark is found by all of them; the place is right within the blur of the map."""
    told, line = inspector
    reader = open_reader(DataSpec("textures", split="test", only=told.surface, limit=40), base=root, labels=())
    marked = [sample for sample in (reader[index] for index in range(40)) if sample.truth.defect]
    hits = {}
    for target in ENGINES:
        with load_artifact(line.folder / "out" / target) as model:
            found = [model.predict(sample.image) for sample in marked]
        inside = [_near(sample.truth.mask, item.peak) for sample, item in zip(marked, found, strict=True)]
        hits[target] = sum(inside)
    assert min(hits.values()) > 0.5 * len(marked), hits
    assert max(hits.values()) - min(hits.values()) <= 2, hits


def test_the_loop_says_what_it_thinks_of_each_frame(inspector: tuple[Inspector, Line]) -> None:
    said = loop_lines(inspector[1])
    assert len(said) == 4
    assert all("verdict" in json.dumps(item) for item in said)


def _near(mask: Any, peak: tuple[int, int], *, margin: int = 8) -> bool:
    """Whether the place ``(x, y)`` is at most ``margin`` pixels from the mask `(H, W)`."""
    column, row = peak
    window = mask[max(0, row - margin) : row + margin + 1, max(0, column - margin) : column + margin + 1]
    return bool(window.any())
