"""`edgecv analyze ARTIFACT` where the recipe is not there: the compiled file's own Q/DQ pairs, one after the other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv import cli, demo
from edgecv.build.analyze_file import analyze_file, readable_artifact
from edgecv.core.artifact import Chain, read_manifest, write_manifest
from edgecv.core.progress import SilentProgress
from edgecv.errors import UsageError
from tests.backends.networks import GraphWriter, write_network
from tests.runtime import proofs


def coarse(model: Any, tensor: str, times: float) -> Any:
    """``model`` with a scale of its own for ``tensor``, ``times`` as wide."""
    from onnx import numpy_helper

    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == tensor]
    (quantize,) = pairs
    readers = [node for node in model.graph.node if quantize.output[0] in node.input]
    old = next(item for item in model.graph.initializer if item.name == quantize.input[1])
    values = np.asarray(numpy_helper.to_array(old) * np.float32(times))
    model.graph.initializer.append(numpy_helper.from_array(values, "coarse"))
    for node in (quantize, *readers):
        node.input[1] = "coarse"
    return model


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "host-onnxruntime"
    model: Any = write_network(GraphWriter([], {})).model()
    made = proofs.classifier("onnxruntime", folder, model)
    write_manifest(made, replace(read_manifest(made), chain=replace(read_manifest(made).chain, graph="a" * 64)))
    return made


def test_every_activation_has_a_row_worst_first(artifact: Path) -> None:
    table = analyze_file(artifact, progress=SilentProgress())
    assert len(table.rows) >= 3
    decibels = [row.sqnr_db for row in table.rows]
    assert decibels == sorted(decibels)
    # Noise adds up: all of it together is worse than the worst alone, and not much worse than the sum.
    assert table.sqnr_db < decibels[0] + 0.5
    total = -10 * np.log10(sum(10 ** (-value / 10) for value in decibels))
    assert table.sqnr_db == pytest.approx(total, abs=4)


def test_a_tensor_with_a_coarser_scale_has_more_noise(tmp_path: Path, artifact: Path) -> None:
    last = analyze_file(artifact, progress=SilentProgress()).rows[-1]
    model: Any = write_network(GraphWriter([], {})).model()
    made = proofs.classifier("onnxruntime", tmp_path / "coarse", coarse(model, last.tensors[0], 16.0))
    rows = {row.tensors: row.sqnr_db for row in analyze_file(made, progress=SilentProgress()).rows}
    assert rows[last.tensors] < last.sqnr_db - 12


def test_the_command_reads_the_file_where_no_recipe_is(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text("a: 1\n")
    assert cli.main(["analyze", str(artifact), "--out", str(tmp_path / "table")]) == 0
    shown = capsys.readouterr().out
    assert "read from the compiled file" in shown
    assert " drop" not in shown  # columns of which nothing is known are left out
    plain = json.loads((tmp_path / "table/sensitivity.json").read_text())
    assert len(plain["table"]["rows"]) >= 3
    assert "golden pictures" in (tmp_path / "table/sensitivity.html").read_text()
    assert cli.main(["analyze", str(artifact), "--score", "5"]) == 2
    assert "--score needs the recipe" in capsys.readouterr().err


def test_another_engines_artifact_leads_to_the_one_beside_it(artifact: Path) -> None:
    beside = artifact.parent / "host-openvino"
    beside.mkdir()
    manifest = read_manifest(artifact)
    write_manifest(beside, replace(manifest, backend="openvino"))
    assert readable_artifact(beside) == artifact
    write_manifest(beside, replace(manifest, backend="openvino", chain=Chain(graph="b" * 64)))
    with pytest.raises(UsageError, match=r"none of the same graph is beside it.*--recipe FILE"):
        readable_artifact(beside)


def test_a_float_artifact_has_nothing_to_analyze() -> None:
    with pytest.raises(UsageError, match=r"fp32 artifact for onnxruntime; there is no int8 in it.*--recipe FILE"):
        readable_artifact(demo.artifact("onnxruntime"))
