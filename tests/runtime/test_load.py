"""Loading an artifact: what works, and every way in which it must be refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv import backends
from edgecv.core.artifact import file_entries, read_manifest, write_manifest
from edgecv.core.contract import InputContract
from edgecv.core.tensor import Quantization
from edgecv.core.trace import Trace
from edgecv.errors import ArtifactError, DataError, ToolchainError, UsageError
from edgecv.runtime.load import load_artifact, tensor_differences

from .conftest import INPUT, LABELS, OUTPUT, null_file


def picture(channel: int) -> np.ndarray:
    image = np.full((20, 30, 3), 10, dtype=np.uint8)
    image[:, :, channel] = 220
    return image


def change(folder: Path, **fields: Any) -> None:
    write_manifest(folder, replace(read_manifest(folder), **fields))


def test_predict(artifact: Path) -> None:
    with load_artifact(artifact) as model:
        assert [model.predict(picture(channel)).to_dict()["classes"][0]["label"] for channel in (2, 1, 0)] == list(
            LABELS
        )
        assert model.manifest.name == "colours"
        assert model.engine is model.subject.engine
        assert model.folder == artifact
        assert model.subject.threads == 2
        assert model.subject.file_sha256 == model.manifest.chain.file
        with pytest.raises(DataError, match="allowed are uint8"):
            model.predict(np.zeros((4, 4, 4), dtype=np.uint8))


def test_trace_names_the_stages_and_changes_nothing(artifact: Path) -> None:
    with load_artifact(str(artifact)) as model:
        trace = Trace()
        traced, plain = model.predict(picture(1), trace=trace), model.predict(picture(1))
        assert list(trace.stages_ms) == ["preprocess", "infer", "decode"]
        assert all(spent > 0 for spent in trace.stages_ms.values())
        np.testing.assert_array_equal(traced.scores, plain.scores)


def test_threads_and_options_reach_the_engine(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(artifact, engine_options={"delay_ms": 1.5})
    null = backends.get("null")
    seen: list[tuple[dict[str, Any], int | None]] = []
    real = null.load

    def spy(path: Path, *, options: dict[str, Any], threads: int | None) -> Any:
        seen.append((dict(options), threads))
        return real(path, options=options, threads=threads)

    monkeypatch.setattr(null, "load", spy)
    assert load_artifact(artifact).subject.threads == 2
    assert load_artifact(artifact, threads=4).subject.threads == 4
    assert seen == [({"delay_ms": 1.5}, 2), ({"delay_ms": 1.5}, 4)]
    with pytest.raises(UsageError, match="threads is 0"):
        load_artifact(artifact, threads=0)


def test_closing_closes_the_engine(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    model = load_artifact(artifact)
    monkeypatch.setattr(type(model.engine), "close", lambda self: closed.append(1))
    with model:
        pass
    model.close()
    assert closed == [1, 1]


def test_a_refused_engine_is_closed(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    with load_artifact(artifact) as model:
        kind = type(model.engine)
    monkeypatch.setattr(kind, "close", lambda self: closed.append(1))
    change(artifact, outputs=(OUTPUT, OUTPUT))
    with pytest.raises(ArtifactError):
        load_artifact(artifact)
    assert closed == [1]


def test_changed_file_is_refused(artifact: Path) -> None:
    path = artifact / "model.null"
    path.write_text(path.read_text() + " ")
    with pytest.raises(ArtifactError, match=r"model\.null has .* bytes, the manifest says"):
        load_artifact(artifact)
    path.write_text(path.read_text()[:-1].replace('"y"', '"z"'))
    with pytest.raises(ArtifactError, match="was changed"):
        load_artifact(artifact)
    load_artifact(artifact, verify=False)  # the caller asked for it


def test_missing_file_is_refused(artifact: Path) -> None:
    (artifact / "model.null").unlink()
    with pytest.raises(ArtifactError, match=r"model\.null is missing"):
        load_artifact(artifact)


def test_file_beside_the_model_is_refused(artifact: Path) -> None:
    """OpenVINO reads model.bin beside model.xml: a file slipped in there must not be used."""
    (artifact / "report.json").write_text("{}")
    load_artifact(artifact)
    (artifact / "model.bin").write_bytes(b"weights of somebody else")
    with pytest.raises(ArtifactError, match=r"holds model\.bin.*does not list"):
        load_artifact(artifact)


def test_file_inside_a_model_folder_is_refused(artifact: Path) -> None:
    inside = artifact / "model.mlpackage"
    inside.mkdir()
    (artifact / "model.null").rename(inside / "model.null")
    change_to = file_entries(artifact, ["model.mlpackage"])
    manifest = replace(read_manifest(artifact), model="model.mlpackage", files=change_to)
    write_manifest(artifact, manifest)
    with pytest.raises(ArtifactError, match="is not a null model"):  # checked and handed on, as a folder
        load_artifact(artifact)
    (inside / "extra").write_text("x")
    with pytest.raises(ArtifactError, match=r"model\.mlpackage/extra"):
        load_artifact(artifact)


def test_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not an artifact"):
        load_artifact(tmp_path)


def test_deferred_says_what_to_do(artifact: Path) -> None:
    change(artifact, status="deferred")
    with pytest.raises(ToolchainError, match=f"edgecv build {artifact}"):
        load_artifact(artifact)


def test_missing_engine_says_how_to_install(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.get("null"), "missing", lambda *, to: "nothing is not installed; run: pip install it")
    with pytest.raises(ToolchainError, match=r"needs the engine null.*pip install it"):
        load_artifact(artifact)


def test_unknown_engine(artifact: Path) -> None:
    change(artifact, backend="future")
    with pytest.raises(ArtifactError, match=r"'future'.*newer edgecv"):
        load_artifact(artifact)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"inputs": (replace(INPUT, shape=(1, 3, 10, 8)),)}, r"int8 \(1, 3, 10, 8\) in the manifest"),
        ({"inputs": (replace(INPUT, dtype="uint8", quantization=None),)}, "uint8 .* in the manifest and int8"),
        ({"inputs": (replace(INPUT, quantization=Quantization(1 / 255, 0)),)}, "zero_point=0"),
        ({"inputs": (replace(INPUT, quantization=Quantization(0.004, -128)),)}, "scale=0.004"),
        ({"inputs": (replace(INPUT, quantization=None),)}, "has None in the manifest"),
        ({"outputs": (OUTPUT, OUTPUT)}, "the manifest has 2 outputs, the engine 1"),
        ({"contract": InputContract(size=(9, 10))}, r"needs \(1, 3, 9, 10\)"),
        ({"contract": InputContract(size=(8, 10), std=(1.0, 0.0, 1.0))}, "0 would divide by zero"),
    ],
)
def test_manifest_that_does_not_fit_the_file(artifact: Path, fields: dict[str, Any], says: str) -> None:
    change(artifact, **fields)
    with pytest.raises(ArtifactError, match=says):
        load_artifact(artifact)


def test_labels_that_do_not_fit(artifact: Path) -> None:
    family = read_manifest(artifact).family
    change(artifact, family=replace(family, labels=("a", "b")))
    with pytest.raises(ArtifactError, match=r"2 labels need \(1, 2\)"):
        load_artifact(artifact)


def test_names_and_layouts_may_differ() -> None:
    assert tensor_differences("input", [INPUT], [replace(INPUT, name="other", layout="OTHER")]) == []
    near = replace(INPUT, quantization=Quantization(float(np.float32(1 / 255)), -128))
    assert tensor_differences("input", [INPUT], [near]) == []


def test_the_device_half_stays_light(artifact: Path) -> None:
    """Loading and running an artifact on a board must not need the host half."""
    code = (
        "import sys, numpy as np\n"
        "from edgecv.runtime.load import load_artifact\n"
        "import edgecv.measure.latency, edgecv.measure.accuracy, edgecv.measure.gate, edgecv.measure.host\n"
        f"model = load_artifact({str(artifact)!r})\n"
        "model.predict(np.zeros((5, 5, 3), dtype=np.uint8))\n"
        "heavy = {'torch', 'onnx', 'yaml', 'pydantic', 'sklearn', 'rich', 'onnxruntime', 'openvino', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_null_model_file_is_what_the_engine_reads(tmp_path: Path) -> None:
    engine = backends.get("null").load(null_file(tmp_path), options={}, threads=None)
    assert engine.inputs == (INPUT,)
