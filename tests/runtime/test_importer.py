"""Importing bare model files, up to the real quantised MobileNet."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv import backends, cli
from edgecv.core.artifact import check_files, files_hash, read_manifest
from edgecv.core.contract import InputContract
from edgecv.core.protocols import Sample
from edgecv.core.recipe import FamilySpec
from edgecv.errors import ArtifactError, ModelError, ToolchainError, UsageError
from edgecv.measure.accuracy import evaluate, even_indices
from edgecv.runtime.importer import import_model
from edgecv.runtime.load import load_artifact

from .conftest import CONTRACT, INPUT, OUTPUT, SPEC, null_file


def imported(bare: Path, out: Path, **changes: Any) -> Path:
    fields: dict[str, Any] = {"name": "colours", "family": SPEC, "contract": CONTRACT, **changes}
    return import_model(bare, out=out, **fields)


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_import_makes_a_whole_artifact(bare: Path, tmp_path: Path) -> None:
    out = imported(bare, tmp_path / "deep" / "out")
    manifest = read_manifest(out)
    check_files(out, manifest)
    assert (manifest.name, manifest.backend, manifest.precision, manifest.status) == (
        "colours",
        "null",
        "int8",
        "ready",
    )
    assert manifest.model == "model.null"
    assert manifest.inputs == (INPUT,)
    assert manifest.outputs == (OUTPUT,)
    assert manifest.chain.file == files_hash(manifest.files)
    assert manifest.engine_version == "1"
    assert "model.null" in manifest.notes[0]
    assert left_behind(tmp_path / "deep") == ["out"]
    assert out.stat().st_mode & 0o777 == 0o755
    with load_artifact(out) as model:
        assert model.predict(np.zeros((9, 9, 3), dtype=np.uint8)).scores.shape == (3,)


def test_float_file_is_recorded_as_float_unless_told(tmp_path: Path) -> None:
    bare = null_file(tmp_path / "bare", input=replace(INPUT, dtype="float32", quantization=None))
    assert read_manifest(imported(bare, tmp_path / "one")).precision == "fp32"
    assert read_manifest(imported(bare, tmp_path / "two", precision="fp16")).precision == "fp16"


@pytest.mark.parametrize(
    ("shape", "guess", "layout"), [((1, 8, 10, 3), "NCHW", "NHWC"), ((1, 3, 8, 10), "NHWC", "NCHW")]
)
def test_the_contract_settles_the_layout(tmp_path: Path, shape: tuple[int, ...], guess: str, layout: str) -> None:
    """Engines guess; an ONNX file that came from a channels-last framework would be read wrongly."""
    bare = null_file(tmp_path / "bare", input=replace(INPUT, shape=shape, layout=guess))  # type: ignore[arg-type]
    out = imported(bare, tmp_path / "out")
    assert read_manifest(out).inputs[0].layout == layout
    with load_artifact(out) as model:
        assert model.subject.input.layout == layout
        model.predict(np.zeros((9, 9, 3), dtype=np.uint8))


def test_rows_of_numbers_are_an_input_too(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By command, as a user would; 97.4 % is the figure of the data pack's manifest."""
    pytest.importorskip("ai_edge_litert")
    file = shared_data / "models/hand_keypoint_classifier/keypoint_classifier.tflite"
    labels, out = shared_data / "gestures-mini/keypoint_labels.csv", tmp_path / "hand"
    words = ["import", str(file), "--vector", "42", "--labels", str(labels), "--outputs", "probabilities"]
    assert cli.main([*words, "--out", str(out)]) == 0
    assert f"edgecv eval {out} --data vectors:FILE.csv" in capsys.readouterr().out
    manifest = read_manifest(out)
    assert (manifest.inputs[0].layout, manifest.contract.vector) == ("NC", True)
    assert manifest.family.labels[0] == "Open", "the byte order mark of the list is no part of a name"
    data = f"vectors:{shared_data}/gestures-mini/keypoint.csv"
    assert cli.main(["eval", str(out), "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["value"] == pytest.approx(0.974, abs=0.001)
    assert cli.main(["bench", str(out), "--data", data, "--protocol", "smoke"]) == 0
    capsys.readouterr()
    for asked, says in (
        (["run", str(out), str(shared_data / "pose-ref/squat.bmp")], "takes a row of 42 numbers and no picture"),
        (["run", "--model", str(out), "--camera", "synthetic:"], "a camera loop gives pictures"),
        (["bench", str(out)], "takes a row of 42 numbers and no picture"),
        (["eval", str(out), "--data", data.replace("keypoint", "point_history")], "takes a row of 42 numbers"),
    ):
        assert cli.main(asked) == 2
        assert says in capsys.readouterr().err
    with pytest.raises(ModelError, match=r"a row of 21 numbers\) needs \(1, 21\)"):
        imported(file, tmp_path / "x", contract=replace(manifest.contract, size=(1, 21)))


def test_existing_out_is_not_touched(bare: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("precious")
    with pytest.raises(UsageError, match="exists"):
        imported(bare, out)
    assert left_behind(out) == ["mine"]
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="exists"):
        imported(bare, dangling)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"name": "Not/Good"}, UsageError, "'Not/Good' cannot be used"),
        ({"target_backend": "nul"}, UsageError, "did you mean 'null'"),
        ({"contract": InputContract(size=(0, 10))}, UsageError, "within 1..16384"),
        ({"contract": InputContract(size=(8, 8))}, ModelError, r"needs \(1, 3, 8, 8\)"),
        ({"family": replace(SPEC, background=True)}, ModelError, "3 labels \\+ 1 for the background"),
        ({"target_backend": "litert"}, ArtifactError, "is not a .tflite file"),
    ],
)
def test_refused_imports_leave_nothing(
    bare: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    if changes.get("target_backend") == "litert":
        pytest.importorskip("ai_edge_litert")
    before = left_behind(tmp_path)
    with pytest.raises(error, match=says):
        imported(bare, tmp_path / "out", **changes)
    assert left_behind(tmp_path) == before


def test_all_problems_of_a_model_at_once(bare: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        imported(bare, tmp_path / "out", contract=InputContract(size=(8, 8)), family=replace(SPEC, labels=("a",)))
    assert len(str(caught.value).splitlines()) == 3


def test_missing_file_and_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no model file"):
        imported(tmp_path / "absent.onnx", tmp_path / "out")
    odd = tmp_path / "model.pb"
    odd.write_text("x")
    with pytest.raises(UsageError, match=r"'\.pb'"):
        imported(odd, tmp_path / "out")


def test_missing_engine(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.get("null"), "missing", lambda *, to: "run: pip install it")
    with pytest.raises(ToolchainError, match="pip install it"):
        imported(bare, tmp_path / "out")


@pytest.mark.parametrize(("suffix", "beside"), [(".xml", "model.bin"), (".onnx", "model.onnx.data")])
def test_weights_beside_the_file_come_along(
    bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, beside: str
) -> None:
    source = bare.with_suffix(suffix)
    bare.rename(source)
    (source.parent / beside).write_bytes(b"weights")
    (source.parent / "unrelated.bin").write_bytes(b"x")
    out = imported(source, tmp_path / "out", target_backend="null")
    manifest = read_manifest(out)
    assert [entry.path for entry in manifest.files] == [source.name, beside]
    assert left_behind(out) == sorted(["manifest.json", source.name, beside])
    load_artifact(out).close()


def test_model_that_is_a_folder(bare: Path, tmp_path: Path) -> None:
    """An .mlpackage is a folder; this one holds no model, but all of it must have been copied and closed in."""
    package = tmp_path / "model.mlpackage"
    (package / "Data").mkdir(parents=True)
    bare.rename(package / "Data" / "weights.null")
    seen: list[list[str]] = []
    null = backends.get("null")

    def load(path: Path, *, options: dict[str, Any], threads: int | None) -> Any:
        seen.append([item.relative_to(path).as_posix() for item in sorted(path.rglob("*"))])
        return null.load(path / "Data" / "weights.null", options=options, threads=threads)

    with pytest.MonkeyPatch.context() as patch:
        coreml = backends.get("coreml")
        patch.setattr(coreml, "missing", lambda *, to: None)
        patch.setattr(coreml, "load", load)
        out = imported(package, tmp_path / "out")
    assert seen == [["Data", "Data/weights.null"]]
    manifest = read_manifest(out)
    assert manifest.model == "model.mlpackage"
    assert [entry.path for entry in manifest.files] == ["model.mlpackage/Data/weights.null"]
    check_files(out, manifest)


def test_folder_that_comes_into_being_meanwhile(bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    real = os.rename

    def late(source: Any, target: Any) -> None:
        if Path(target) == out:
            out.mkdir()
            (out / "theirs").write_text("x")
        real(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(UsageError, match="cannot be written"):
        imported(bare, out)
    assert left_behind(out) == ["theirs"]
    assert left_behind(tmp_path) == ["bare", "out"]


@dataclass(frozen=True)
class ImagenetSamples:
    """The real pictures of the test data, an even pick."""

    folder: Path
    rows: list[dict[str, str]]

    skipped: Any = None

    @property
    def ids(self) -> list[str]:
        return [row["file"] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        image = cv2.imread(str(self.folder / row["file"]))
        return Sample(row["file"], image, int(row["class_index_0_999"]))

    def sha256(self, index: int) -> str:
        raise NotImplementedError

    def fingerprint(self) -> str:
        raise NotImplementedError


def plain_loop(model: Path, samples: ImagenetSamples) -> list[int]:
    """What anybody would write: OpenCV, the recipe of the model's publisher, and the bare interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model), num_threads=1)
    interpreter.allocate_tensors()
    (into,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for index in range(len(samples)):
        image = cv2.cvtColor(samples[index].image, cv2.COLOR_BGR2RGB)
        height, width = image.shape[:2]
        short = min(height, width)
        size = (int(256 * width / short), int(256 * height / short))
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR_EXACT)
        top, left = round((image.shape[0] - 224) / 2), round((image.shape[1] - 224) / 2)
        interpreter.set_tensor(into["index"], image[np.newaxis, top : top + 224, left : left + 224])
        interpreter.invoke()
        answers.append(int(interpreter.get_tensor(out["index"])[0, 1:].argmax()))
    return answers


@pytest.mark.build
def test_quantised_mobilenet_answers_as_in_a_plain_loop(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    model = shared_data / "models" / "mobilenet_v2_1.0_224_quant"
    file = model / "mobilenet_v2_1.0_224_quant.tflite"
    labels = tuple((model / "imagenet_labels.txt").read_text(encoding="utf-8").splitlines()[1:])
    with (shared_data / "imagenet-samples" / "labels.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    samples = ImagenetSamples(shared_data / "imagenet-samples", [rows[index] for index in even_indices(len(rows), 100)])
    out = import_model(
        file,
        out=tmp_path / "mobilenet",
        name="mobilenet-v2",
        family=FamilySpec("classification", labels, background=True, outputs="probabilities"),
        # Scale 1/128 and zero point 128: with this range the stored values are the pixels themselves.
        contract=InputContract(size=(224, 224), resize="crop", crop_ratio=0.875, range=(-1.0, 127 / 128)),
    )
    assert read_manifest(out).precision == "int8"
    with load_artifact(out, threads=1) as loaded:
        answers = [loaded.predict(samples[index].image).best for index in range(len(samples))]
        figures = evaluate(loaded.subject, samples)
    assert answers == plain_loop(file, samples)
    truths = [samples[index].truth for index in range(len(samples))]
    assert figures.value == np.mean(np.array(answers) == np.array(truths))
    assert figures.value >= 0.85
    assert figures.extras["top5"] >= 0.95
