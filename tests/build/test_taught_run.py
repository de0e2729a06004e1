"""Forty labelled digits and a thousand for which the teacher answers: fine-tuning and QAT by a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecv import cli
from edgecv.report.schema import Report
from edgecv.report.schema_io import read_report

STEPS = [
    {"prune": {"importance": "taylor", "speedup": 4.0}},
    {"finetune": {"epochs": 100, "lr": 1e-3, "batch_size": 32, "distill": 0.9, "augment": "crop"}},
    {"quantize": {"method": "qat", "epochs": 4, "distill": 0.9, "augment": "crop"}},
]


def run(root: Path, folder: Path, *more: str) -> Report:
    settings = [
        "data.train={kind: sklearn-digits, split: train, limit: 40}",
        f"steps={json.dumps(STEPS)}",
        "targets=[host-onnxruntime]",
        "budgets={}",
        "measure.protocol=smoke",
        *more,
    ]
    words = ["optimize", str(root / "recipes/classification/digits.yaml"), "--out", str(folder / "out")]
    words += ["--cache", str(folder.parent / "cache")]
    assert cli.main([*words, *(word for item in settings for word in ("--set", item))]) == 0
    return read_report(folder / "out")


def top1(report: Report) -> float:
    (found,) = [item.accuracy for item in report.artifacts if item.role == "optimized"]
    assert found is not None
    return found.value


@pytest.mark.build
@pytest.mark.xdist_group("taught")
def test_pictures_without_labels_bring_back_what_few_labels_cannot(root: Path, tmp_path: Path) -> None:
    alone = run(root, tmp_path / "alone")
    taught = run(root, tmp_path / "taught", "data.unlabelled={kind: sklearn-digits}")
    said = [step.effect for step in taught.steps if step.kind in ("finetune", "quantize")]
    assert [effect["unlabelled_pictures"] for effect in said] == [1201, 1201]  # all but those of the evaluation set
    assert not any("unlabelled_pictures" in step.effect for step in alone.steps)
    assert top1(taught) > top1(alone) + 0.02
    assert top1(taught) > 0.9
