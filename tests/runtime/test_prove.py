"""`edgecv verify` names the fault: each planted the way it happens, on real engines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv import backends, cli
from edgecv.backends.contents import read_contents
from edgecv.core.artifact import read_manifest
from edgecv.core.figures import Diagnosis
from edgecv.runtime.prove import Proof, prove
from tests.backends.networks import GraphWriter, write_network
from tests.runtime import proofs

for needed in ("onnx", "onnxruntime", "openvino", "ai_edge_litert"):
    pytest.importorskip(needed, reason="faults are planted into the files of all engines")

ENGINES = ("onnxruntime", "openvino", "litert")


@pytest.fixture(scope="session")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo's detector with its proof, for each engine that is installed."""
    folder = tmp_path_factory.mktemp("detectors")
    here = [name for name in ENGINES if backends.get(name).missing(to="run") is None]
    return {name: proofs.detector(name, folder / name) for name in here}


@pytest.fixture(scope="session")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small int8 network with its proof, for the engines that read ONNX."""
    folder = tmp_path_factory.mktemp("classifiers")
    model = write_network(GraphWriter([], {})).model()
    return {name: proofs.classifier(name, folder / name, model) for name in ENGINES[:2]}


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        place: Path = tmp_path / folder.name
        shutil.copytree(folder, place)
        return place

    return make


def cause(proof: Proof, rung: str) -> Diagnosis:
    """The first cause, which must blame ``rung``, as must the ladder."""
    assert proof.ladder is not None
    assert proof.ladder.first_broken is not None, proof.ladder.rungs
    assert proof.ladder.first_broken.endswith(f"({rung})"), (proof.ladder.first_broken, proof.ladder.diagnosis)
    assert proof.ladder.diagnosis
    assert {item.rung for item in proof.ladder.diagnosis} == {rung}
    return proof.ladder.diagnosis[0]


def contract_of(folder: Path, **changes: Any) -> None:
    proofs.rehash(folder, contract=replace(read_manifest(folder).contract, **changes))


def family_of(folder: Path, **changes: Any) -> None:
    proofs.rehash(folder, family=replace(read_manifest(folder).family, **changes))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_clean_detector_holds_on_every_engine(detectors: dict[str, Path], engine: str) -> None:
    proof = prove(detectors[engine])
    assert proof.holds, proof
    assert proof.skipped == ""
    assert proof.ladder is not None
    assert [rung.outcome for rung in proof.ladder.rungs] == ["pass"] * 6
    assert proof.ladder.diagnosis == ()


@pytest.mark.parametrize("engine", ENGINES[:2])
def test_a_clean_int8_classifier_holds(classifiers: dict[str, Path], engine: str) -> None:
    assert prove(classifiers[engine]).holds


@pytest.mark.parametrize("engine", ENGINES)
def test_a_wrong_mean_is_named(detectors: dict[str, Path], copy: Callable[[Path], Path], engine: str) -> None:
    folder = copy(detectors[engine])
    contract_of(folder, mean=(0.1, 0.25, 0.05))
    found = prove(folder)
    assert cause(found, "pre-processing").what == "mean"
    assert (cause(found, "pre-processing").found, cause(found, "pre-processing").expected) == (
        "[0.1, 0.25, 0.05]",
        "[0.1, 0, 0.05]",
    )
    assert len(found.ladder.diagnosis) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("engine", ENGINES)
def test_red_for_blue_is_named(detectors: dict[str, Path], copy: Callable[[Path], Path], engine: str) -> None:
    folder = copy(detectors[engine])
    contract_of(folder, color="rgb")
    found = prove(folder)
    named = cause(found, "pre-processing")
    assert (named.what, named.found, named.expected) == ("channel order", "rgb", "bgr")
    assert len(found.ladder.diagnosis) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "what", "found", "expected"),
    [
        ({"std": (1.1, 1.0, 0.45)}, "std", "[1.1, 1, 0.45]", "[1.1, 1, 0.9]"),
        ({"range": (0.0, 255.0)}, "range", "[0, 255]", "[0, 1]"),
        ({"resize": "stretch"}, "resize", "stretch", "letterbox"),
        ({"resize": "crop"}, "resize", "crop", "letterbox"),
        ({"interpolation": "nearest"}, "interpolation", "nearest", "linear"),
        ({"pad_value": 0}, "pad_value", "0", "114"),
    ],
)
def test_other_settings_of_the_contract_are_named(
    detectors: dict[str, Path],
    copy: Callable[[Path], Path],
    change: dict[str, Any],
    what: str,
    found: str,
    expected: str,
) -> None:
    folder = copy(detectors["onnxruntime"])
    contract_of(folder, **change)
    proof = prove(folder)
    named = cause(proof, "pre-processing")
    assert (named.what, named.found, named.expected) == (what, found, expected)
    assert len(proof.ladder.diagnosis) == 1  # type: ignore[union-attr]


def test_two_settings_of_one_rung_are_both_named(detectors: dict[str, Path], copy: Callable[[Path], Path]) -> None:
    folder = copy(detectors["onnxruntime"])
    contract_of(folder, color="rgb", mean=(0.5, 0.5, 0.5))
    found = prove(folder)
    assert cause(found, "pre-processing")
    assert [item.what for item in found.ladder.diagnosis] == ["channel order", "mean"]  # type: ignore[union-attr]


@pytest.mark.parametrize("side", ["the training's code", "this machine's code"])
@pytest.mark.parametrize("move", [(1, 0), (-1, 0)])
def test_a_letterbox_that_is_off_by_one_is_named(
    detectors: dict[str, Path],
    copy: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    side: str,
    move: tuple[int, int],
) -> None:
    """The odd row of padding goes above instead of below: in what training made, or in what this machine does."""
    from edgecv.vision import image, preprocessor

    folder = copy(detectors["onnxruntime"])
    real = image.geometry

    def shifted(picture: tuple[int, int], contract: Any) -> image.Geometry:
        place = real(picture, contract)
        return replace(place, offset=(place.offset[0] + move[0], place.offset[1] + move[1]))

    right = real((200, 403), read_manifest(folder).contract).offset
    assert right == (32, 0)
    other = (right[0] + move[0], right[1] + move[1])
    pictures = proofs.scenes()
    if side == "the training's code":
        with monkeypatch.context() as patch:
            patch.setattr(image, "geometry", shifted)
            proofs.give_proof(folder, pictures)
        found, expected = right, other
    else:
        proofs.give_proof(folder, pictures)
        monkeypatch.setattr(preprocessor, "geometry", shifted)
        found, expected = other, right
    named = cause(prove(folder), "pre-processing")
    assert named.what.startswith("letterbox offset")
    assert (named.found, named.expected) == (str(found), str(expected))


def test_a_transposed_weight_is_named_onnxruntime(detectors: dict[str, Path], copy: Callable[[Path], Path]) -> None:
    folder = copy(detectors["onnxruntime"])
    proofs.edit_onnx(folder, "eighth.1.3.weight", lambda values: values.transpose(1, 0, 2, 3))
    named = cause(prove(folder), "graph")
    assert named.what == "weight 'eighth.1.3.weight'"
    assert named.found.startswith("it is transposed")


@pytest.mark.parametrize("engine", ["openvino", "litert"])
def test_a_transposed_weight_is_named_in_other_files(
    detectors: dict[str, Path], copy: Callable[[Path], Path], engine: str
) -> None:
    folder = copy(detectors[engine])
    contents = read_contents(engine, folder / read_manifest(folder).model)
    assert contents is not None
    square = {
        name: value
        for name, value in contents.weights.items()
        if value.ndim == 4 and value.dtype == np.float32 and value.size == 48 * 48 and 48 in value.shape
    }
    name, value = next(iter(square.items()))
    matrix = value.reshape(48, 48)
    proofs.edit_bytes(folder / ("model.bin" if engine == "openvino" else "model.tflite"), value, matrix.T)
    named = cause(prove(folder), "graph")
    assert named.what == f"weight {name!r}"
    assert named.found.startswith("it is transposed")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values[:, ::-1], "axis 1 is reversed (as RGB for BGR)"),
        (lambda values: values * 1.5, "multiplied by 1.5"),
        (lambda values: values[np.random.default_rng(0).permutation(len(values))], "axis 0 are in another order"),
        (lambda values: values + 0.25, "0.25 is added"),
    ],
)
def test_other_changes_of_a_weight_are_named(
    detectors: dict[str, Path], copy: Callable[[Path], Path], change: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    folder = copy(detectors["onnxruntime"])
    proofs.edit_onnx(folder, "stem.0.weight", change)
    named = cause(prove(folder), "graph")
    assert named.what == "weight 'stem.0.weight'"
    assert words in named.found


def test_a_changed_operator_is_named(detectors: dict[str, Path], copy: Callable[[Path], Path]) -> None:
    import onnx

    folder = copy(detectors["onnxruntime"])
    model = onnx.load(str(folder / "model.onnx"))
    node = next(node for node in model.graph.node if node.output[0] == "relu_3")
    node.op_type = "Abs"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    proofs.rehash(folder)
    assert cause(prove(folder), "graph").what == "operator that makes 'relu_3'"


def test_a_wrong_zero_point_in_an_onnx_file_is_named(
    classifiers: dict[str, Path], copy: Callable[[Path], Path]
) -> None:
    folder = copy(classifiers["onnxruntime"])
    proofs.edit_onnx_zero_point(folder, "y2", 108)
    named = cause(prove(folder), "quantisation")
    assert (named.what, named.found, named.expected) == ("zero point of 'y2'", "108", "128")


def test_a_file_that_the_engine_refuses_is_no_proof(classifiers: dict[str, Path], copy: Callable[[Path], Path]) -> None:
    """The values stay as they are, the zero point becomes a list of one: ONNX Runtime has no kernel for that."""
    folder = copy(classifiers["onnxruntime"])
    proofs.edit_onnx_zero_point(folder, "y2", 128, shape=(1,))
    assert "refuses the model file" in cause(prove(folder), "compiler").what


def test_a_wrong_zero_point_in_openvino_ir_is_named(classifiers: dict[str, Path], copy: Callable[[Path], Path]) -> None:
    folder = copy(classifiers["openvino"])
    proofs.edit_openvino_zero_point(folder, "node_y2", 20)
    named = cause(prove(folder), "quantisation")
    assert (named.what, named.found, named.expected) == ("zero point of 'node_y2'", "108", "128")


@pytest.mark.parametrize(("place", "name"), [("inside", ""), ("input", "input"), ("output", "output")])
def test_a_wrong_zero_point_in_a_tflite_file_is_named(shared_data: Path, tmp_path: Path, place: str, name: str) -> None:
    """MLPerf Tiny's int8 ResNet-8: the zero point of one tensor in the file, or in the manifest, is another."""
    folder = proofs.resnet8(shared_data, tmp_path / "resnet8")
    assert prove(folder).holds
    if place == "inside":
        tensor, before, after = proofs.edit_tflite_zero_point(folder, 20)
    else:
        field = f"{place}s"
        spec = getattr(read_manifest(folder), field)[0]
        tensor, before, after = spec.name, spec.quantization.zero_point, spec.quantization.zero_point + 20
        changed = replace(spec, quantization=replace(spec.quantization, zero_point=after))
        proofs.rehash(folder, **{field: (changed,)})
    named = cause(prove(folder), "quantisation")
    assert named.what.startswith("zero point of")
    assert name in named.what
    assert tensor[-12:] in named.what
    assert (named.found, named.expected) == (str(after), str(before))


def test_a_wrong_scale_in_an_onnx_file_is_named(classifiers: dict[str, Path], copy: Callable[[Path], Path]) -> None:
    folder = copy(classifiers["onnxruntime"])
    proofs.edit_onnx(folder, "w1_s", lambda value: value * 2)
    named = cause(prove(folder), "quantisation")
    assert named.what.startswith("scale of 'w1")
    assert float(named.found) == pytest.approx(2 * float(named.expected), rel=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_another_nms_is_named(detectors: dict[str, Path], copy: Callable[[Path], Path], engine: str) -> None:
    folder = copy(detectors[engine])
    assert read_manifest(folder).family.iou_threshold == 0.45
    family_of(folder, iou_threshold=0.95)
    named = cause(prove(folder), "decode")
    assert (named.what, named.found) == ("iou_threshold", "0.95")
    low, high = (float(word) for word in named.expected.split(" to "))
    assert low <= 0.45 <= high
    assert high < 0.95


@pytest.mark.parametrize(
    ("change", "what", "found"),
    [
        ({"score_threshold": 0.98}, "score_threshold", "0.98"),
        ({"max_detections": 2}, "max_detections", "2"),
        ({"options": {"normalized": True}}, "option normalized", "true"),
    ],
)
def test_other_settings_of_the_decoding_are_named(
    detectors: dict[str, Path], copy: Callable[[Path], Path], change: dict[str, Any], what: str, found: str
) -> None:
    folder = copy(detectors["onnxruntime"])
    family_of(folder, **change)
    named = cause(prove(folder), "decode")
    assert (named.what, named.found) == (what, found)


def test_labels_in_another_order_are_named(detectors: dict[str, Path], copy: Callable[[Path], Path]) -> None:
    folder = copy(detectors["onnxruntime"])
    family_of(folder, labels=("box", "disc", "triangle", "person"))
    named = cause(prove(folder), "metric")
    assert (named.what, named.found, named.expected) == ("order of the labels", "0 box, 1 disc", "0 disc, 1 box")


FAULTS: list[tuple[str, Callable[[Path], None]]] = [
    ("pre-processing", lambda folder: contract_of(folder, color="bgr")),
    ("graph", lambda folder: proofs.edit_onnx(folder, "w2_c", lambda values: values.transpose(1, 0, 2, 3))),
    ("quantisation", lambda folder: proofs.edit_onnx(folder, "w1_s", lambda value: value * 2)),
    ("decode", lambda folder: family_of(folder, top_k=2)),
    ("metric", lambda folder: family_of(folder, labels=tuple(reversed(read_manifest(folder).family.labels)))),
]


@pytest.mark.parametrize("first", range(len(FAULTS) - 1))
def test_of_two_faults_the_first_rung_is_named(
    classifiers: dict[str, Path], copy: Callable[[Path], Path], first: int
) -> None:
    folder = copy(classifiers["onnxruntime"])
    FAULTS[first + 1][1](folder)
    assert cause(prove(folder), FAULTS[first + 1][0])
    FAULTS[first][1](folder)
    assert cause(prove(folder), FAULTS[first][0])


def test_the_command_ends_with_3_and_says_why(
    detectors: dict[str, Path], copy: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(detectors["onnxruntime"])
    assert cli.main(["verify", str(folder)]) == 0
    assert "cause" not in capsys.readouterr().out
    contract_of(folder, color="rgb")
    assert cli.main(["verify", str(folder)]) == 3
    shown = capsys.readouterr()
    assert "pre-processing: channel order: found rgb, expected bgr" in shown.err
    assert cli.main(["verify", str(folder), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert not told["holds"]
    assert told["ladder"]["diagnosis"][0]["expected"] == "bgr"


def test_a_file_that_was_changed_ends_with_6(
    detectors: dict[str, Path], copy: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(detectors["onnxruntime"])
    model = bytearray((folder / "model.onnx").read_bytes())
    model[5000] ^= 1
    (folder / "model.onnx").write_bytes(model)
    assert cli.main(["verify", str(folder)]) == 6
    assert "model.onnx was changed" in capsys.readouterr().err


def test_a_manifest_that_does_not_fit_the_golden_pictures_ends_with_6(
    detectors: dict[str, Path], copy: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(detectors["onnxruntime"])
    contract_of(folder, size=(96, 96))
    assert cli.main(["verify", str(folder)]) == 6
    assert "input contract" in capsys.readouterr().err


def test_without_the_engine_the_rest_is_still_checked(
    detectors: dict[str, Path], copy: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(detectors["onnxruntime"])
    monkeypatch.setattr(backends.get("onnxruntime"), "missing", lambda *, to: "it is not installed")
    clean = prove(folder)
    assert clean.holds
    assert "not installed" in clean.skipped
    family_of(folder, iou_threshold=0.95)
    assert cause(prove(folder), "decode").what == "iou_threshold"


def test_an_imported_artifact_has_nothing_to_compare_with(artifact: Path) -> None:
    found = prove(artifact)
    assert (found.ladder, found.holds) == (None, True)
    assert "no golden pictures" in found.skipped
