"""Shipped weights of the scenes recipes for video, anomaly and embedding are about as good as their comments say."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecv import cli
from edgecv.report.schema_io import read_report

pytestmark = pytest.mark.slow

FIT = "[{fit: {samples: 64}}]"


@pytest.mark.parametrize(
    ("recipe", "steps", "limit", "metric", "least"),
    [
        ("video/scenes-motions", "[]", 90, "top1", 0.97),
        ("video/scenes-stream", "[]", 90, "top1", 0.97),
        ("video/scenes-tsm", "[]", 90, "top1", 0.95),
        ("anomaly/scenes-patchcore", FIT, 100, "auroc", 0.97),
        ("anomaly/scenes-padim", FIT, 100, "auroc", 0.95),
        ("anomaly/scenes-reconstruction", FIT, 100, "auroc", 0.88),
        ("anomaly/scenes-student", FIT, 100, "auroc", 0.94),
        ("embedding/scenes-identities", "[]", 300, "recall1", 0.95),
    ],
)
def test_shipped_weights_are_about_as_good_as_the_recipe_says(
    root: Path, tmp_path: Path, recipe: str, steps: str, limit: int, metric: str, least: float
) -> None:
    """Without tuning; ``least`` leaves room for fewer pictures than the comment's figure is of."""
    out = tmp_path / "out"
    words = ["optimize", str(root / "recipes" / f"{recipe}.yaml"), "--out", str(out), "--cache", str(tmp_path / "c")]
    for setting in (f"steps={steps}", f"data.eval.limit={limit}", "targets=[host-onnxruntime]", "budgets={}"):
        words += ["--set", setting]
    assert cli.main(words) == 0
    figures = next(item for item in read_report(out).artifacts if item.role == "float")
    assert figures.accuracy is not None
    assert figures.accuracy.metric == metric
    assert figures.accuracy.value >= least
