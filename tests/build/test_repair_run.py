"""`edgecv optimize` with a repair ladder: a network that plain int8 ruins comes back, and the report says how."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from edgecv import cli
from edgecv.core.artifact import Chain, read_manifest
from edgecv.data.digits import open_digits
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("repair-run")]

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RECIPE = """\
recipe: 1
name: spread
model:
  source: python:edgecv.models.reference:digits_cnn
  weights: spread.safetensors
  input: {size: [32, 32], color: gray, mean: [0.0], std: [1.0], resize: stretch}
family: {kind: classification, labels: [zero, one, two, three, four, five, six, seven, eight, nine]}
data:
  train: {kind: sklearn-digits, split: train, limit: 400}
  eval: {kind: sklearn-digits, split: test}
  calibration: {source: {kind: sklearn-digits, split: train, limit: 400}, samples: 64}
steps:
  # What the ladder finds is written here.
  - quantize:
      method: ptq   # no training
      repair: ptq
targets: [host-onnxruntime]
budgets: {accuracy: {metric: top1, max_drop: 0.03}}
measure: {protocol: smoke}
"""
PAIRS = (("stem.norm", "down.conv"), ("mix.norm", "spread.conv"), ("residual.first.norm", "residual.second"))


@dataclass(frozen=True)
class Ran:
    """A finished run: its exit code, report, what it printed, its build information and the chain of its artifact."""

    code: int
    report: Report
    text: str
    info: dict[str, Any]
    chain: Chain

    @property
    def int8(self) -> ArtifactFigures:
        return next(item for item in self.report.artifacts if item.role == "optimized")

    @property
    def quantize(self) -> dict[str, Any]:
        return next(step.effect for step in self.report.steps if step.kind == "quantize")


def spread_weights(source: Path, out: Path) -> None:
    """The digits network with channels up to 2 ** 12 apart: the same function in float, hopeless per tensor."""
    state = safetensors.torch.load_file(source)
    generator = torch.Generator().manual_seed(0)
    for norm, layer in PAIRS:
        count = state[f"{norm}.weight"].shape[0]
        factors = 2.0 ** torch.randint(-6, 7, (count,), generator=generator).float()
        state[f"{norm}.weight"] *= factors
        state[f"{norm}.bias"] *= factors
        state[f"{layer}.weight"] /= factors.reshape(1, -1, 1, 1)
    safetensors.torch.save_file(state, out)


def run(folder: Path, name: str, *sets: str) -> Ran:
    more = [word for item in sets for word in ("--set", item)]
    out = folder / name
    code = cli.main(
        ["optimize", str(folder / "spread.yaml"), "--out", str(out), "--cache", str(folder / "cache"), *more]
    )
    info = json.loads((out / "host-onnxruntime/buildinfo.json").read_text())
    chain = read_manifest(out / "host-onnxruntime").chain
    return Ran(code, read_report(out), (out / "report.html").read_text(), info, chain)


@pytest.fixture(scope="module")
def folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("spread")
    spread_weights(root / "recipes/classification/digits.safetensors", made / "spread.safetensors")
    (made / "spread.yaml").write_text(RECIPE)
    return made


@pytest.fixture(scope="module")
def plain(folder: Path) -> Ran:
    return run(folder, "plain", "steps.0.quantize.repair=off")


@pytest.fixture(scope="module")
def mended(folder: Path) -> Ran:
    return run(folder, "mended")


def test_without_the_ladder_the_gate_fails(plain: Ran) -> None:
    assert plain.code == 3
    assert plain.int8.drop is not None
    assert plain.int8.drop.drop > 0.1
    assert "repair" not in plain.quantize
    assert plain.info["quantization"]["judge"] is None


def test_the_ladder_mends_it_and_the_report_names_the_rung(mended: Ran) -> None:
    assert mended.code == 0
    assert mended.int8.drop is not None
    assert mended.int8.drop.outcome == "pass"
    assert mended.int8.drop.drop < 0.01
    assert mended.quantize["repair"] == "mended"
    assert mended.quantize["mended_by"] == "equalisation"
    found = mended.info["quantization"]["repair"]
    assert found["settings"] == {"equalize": True}
    assert found["first"]["value"] < 0.9 < 0.97 < found["last"]["value"]
    assert any("repair: mended by equalisation" in note for note in mended.report.notes)
    assert "repair: mended by equalisation" in mended.text
    assert "none of calibration or evaluation" in mended.text


def test_the_rungs_are_judged_on_pictures_that_nothing_else_uses(mended: Ran) -> None:
    judge = mended.info["quantization"]["judge"]
    assert (judge["origin"], judge["labelled"]) == ("the training set", True)
    train, test = (open_digits(split=part, labels=LABELS, limit=None) for part in ("train", "test"))  # type: ignore[arg-type]
    assert judge["pictures"] == len(judge["ids"]) > 300
    assert set(judge["ids"]) <= set(train.ids) - set(test.ids)
    assert judge["pictures"] + 64 == 400


def test_written_back_settings_give_the_same_file_without_a_ladder(
    folder: Path, mended: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "spread.yaml"
    words = ["analyze", str(path), "--out", str(folder / "table"), "--cache", str(folder / "cache"), "--no-times"]
    try:
        assert cli.main([*words, "--pictures", "4", "--repair", "ptq", "--write-back"]) == 0
        assert "repair: mended; judged on" in capsys.readouterr().out
        text = path.read_text()
        assert "equalize: true" in text
        assert "# What the ladder finds is written here." in text
        assert "method: ptq   # no training" in text
        again = run(folder, "again", "steps.0.quantize.repair=off")
        assert again.code == 0
        assert (again.chain.graph, again.chain.file) == (mended.chain.graph, mended.chain.file)
        # With the ladder left on there is nothing to mend any more.
        with_ladder = run(folder, "ladder")
        assert with_ladder.quantize["repair"] == "not-needed"
        assert with_ladder.chain.file == mended.chain.file
    finally:
        path.write_text(RECIPE)


def test_analyze_looks_at_the_scheme_that_the_build_takes(folder: Path) -> None:
    """`portable` without TensorRT has zero points, and so has what is analysed."""
    words = ["analyze", str(folder / "spread.yaml"), "--cache", str(folder / "cache"), "--no-times"]
    tables = {}
    for scheme in ("portable", "affine", "symmetric"):
        sets = ["--set", f"steps.0.quantize.scheme={scheme}", "--out", str(folder / scheme), "--pictures", "2"]
        assert cli.main([*words, *sets]) == 0
        tables[scheme] = json.loads((folder / scheme / "sensitivity.json").read_text())["table"]["rows"]
    assert tables["portable"] == tables["affine"]
    assert tables["portable"] != tables["symmetric"]
