"""The whole line for a detector: an ONNX file and COCO boxes in, compiled and proven artifacts out."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact

SIDE, CLASSES = 64, 2
RECIPE = """\
recipe: 1
name: tiny
model:
  source: onnx:tiny.onnx
  input: {size: [64, 64], color: bgr, range: [0, 255], resize: letterbox-topleft, pad_value: 114}
family: {kind: detection, head: yolox, labels: [disc, block], score_threshold: 0.01, max_detections: 50}
data:
  eval: {kind: coco, path: boxes.json, root: pictures, only: "eval*"}
  calibration: {source: {kind: images, path: "pictures/train*"}, samples: 16}
steps:
  - prune: {ratio: 0.25, round_to: 4}
  - finetune: {epochs: 0}
  - quantize: {method: ptq}
targets: [host-onnxruntime]
budgets: {accuracy: {max_drop: 0.9}}
measure: {protocol: smoke}
"""


def tiny_detector(path: Path) -> None:
    """An ONNX file with the outputs of YOLOX `[1, 84, 7]`: the brighter a place, the surer a box of its stride."""
    random = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    nodes = []

    def conv(name: str, source: str, out: str, channels: tuple[int, int], *, stride: int = 1, side: int = 1) -> None:
        weights[f"{name}.weight"] = (random.normal(0, 1, (channels[1], channels[0], side, side)) * 0.15).astype("f4")
        weights[f"{name}.bias"] = np.full(channels[1], 0.1, dtype="f4")
        kernel = {"kernel_shape": [side, side], "strides": [stride] * 2, "pads": [side // 2] * 4}
        nodes.append(helper.make_node("Conv", [source, f"{name}.weight", f"{name}.bias"], [out], name=name, **kernel))

    weights["scale"] = np.array(1 / 255, dtype="f4")
    nodes.append(helper.make_node("Mul", ["images", "scale"], ["x0"]))
    source, channels = "x0", 3
    flat = []
    for level, stride in enumerate((2, 2, 2, 2, 2)):
        conv(f"body{level}", source, f"c{level}", (channels, 16), stride=stride, side=3)
        nodes.append(helper.make_node("Relu", [f"c{level}"], [f"r{level}"]))
        source, channels = f"r{level}", 16
        if level >= 2:
            conv(f"box{level}", source, f"b{level}", (16, 4))
            conv(f"sure{level}", source, f"s{level}", (16, 1 + CLASSES))
            side = SIDE // 2 ** (level + 1)
            weights[f"shape{level}"] = np.array([1, 5 + CLASSES, side * side])
            nodes += [
                helper.make_node("Sigmoid", [f"s{level}"], [f"p{level}"]),
                helper.make_node("Concat", [f"b{level}", f"p{level}"], [f"o{level}"], axis=1),
                helper.make_node("Reshape", [f"o{level}", f"shape{level}"], [f"f{level}"]),
            ]
            flat.append(f"f{level}")
    nodes.append(helper.make_node("Concat", flat, ["all"], axis=2))
    nodes.append(helper.make_node("Transpose", ["all"], ["output"], perm=[0, 2, 1]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 84, 5 + CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def write_pictures(folder: Path) -> None:
    """Discs and blocks on a smooth ground, with their boxes: 12 to judge and 16 to calibrate with."""
    random = np.random.default_rng(1)
    images, notes = [], []
    for number in range(28):
        name = f"{'eval' if number < 12 else 'train'}{number:02d}.png"
        image = cv2.resize(random.integers(0, 120, (6, 8, 3), dtype=np.uint8), (80, 60))
        x, y, kind = int(random.integers(12, 60)), int(random.integers(12, 45)), number % 2
        colour = tuple(int(value) for value in random.integers(150, 255, 3))
        if kind:
            cv2.rectangle(image, (x - 8, y - 8), (x + 8, y + 8), colour, -1)
        else:
            cv2.circle(image, (x, y), 9, colour, -1)
        assert cv2.imwrite(str(folder / name), image)
        images.append({"id": number, "file_name": name, "width": 80, "height": 60})
        notes.append({"id": number, "image_id": number, "category_id": kind + 1, "bbox": [x - 9, y - 9, 18, 18]})
    categories = [{"id": 1, "name": "disc"}, {"id": 2, "name": "block"}]
    tables = {"images": images, "annotations": notes, "categories": categories}
    (folder.parent / "boxes.json").write_text(json.dumps(tables))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, Report]:
    """A finished run of the tiny detector: its folder, exit code and report."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "pictures").mkdir()
    torch.manual_seed(0)
    tiny_detector(folder / "tiny.onnx")
    write_pictures(folder / "pictures")
    (folder / "tiny.yaml").write_text(RECIPE)
    words = ["optimize", str(folder / "tiny.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    code = cli.main(words)
    return folder, code, read_report(folder / "out")


def optimized(report: Report, target: str) -> ArtifactFigures:
    return next(item for item in report.artifacts if item.target == target and item.role == "optimized")


@pytest.mark.build
@pytest.mark.xdist_group("tiny-detector")
def test_an_onnx_detector_goes_through_every_step(tiny: tuple[Path, int, Report]) -> None:
    folder, code, report = tiny
    assert code == 0, report.outcome
    effects = {step.kind: step.effect for step in report.steps}
    assert float(effects["prune"]["macs_after"]) < float(effects["prune"]["macs_before"])
    assert effects["finetune"] == {"epochs": 0}
    assert effects["quantize"]["pictures"] == 16
    figures = optimized(report, "host-onnxruntime")
    assert figures.accuracy is not None
    assert (figures.accuracy.metric, figures.accuracy.samples) == ("ap", 12)
    assert figures.accuracy.interval is not None
    manifest = read_manifest(folder / "out/host-onnxruntime")
    assert (manifest.precision, manifest.family.head) == ("int8", "yolox")


@pytest.mark.build
@pytest.mark.xdist_group("tiny-detector")
def test_the_drop_is_of_the_precision_itself(tiny: tuple[Path, int, Report]) -> None:
    _, _, report = tiny
    figures = optimized(report, "host-onnxruntime")
    before = next(item for item in report.artifacts if item.role == "float")
    assert figures.drop is not None
    assert figures.accuracy is not None
    assert before.accuracy is not None
    assert figures.drop.drop == pytest.approx(before.accuracy.value - figures.accuracy.value, abs=1e-6)
    assert figures.drop.resamples == 10_000
    assert figures.drop.interval.low < figures.drop.drop < figures.drop.interval.high


@pytest.mark.build
@pytest.mark.xdist_group("tiny-detector")
def test_broken_boxes_stop_the_run_before_any_work(
    tiny: tuple[Path, int, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = tiny
    tables = json.loads((folder / "boxes.json").read_text())
    tables["annotations"][3]["category_id"] = 9
    (tmp_path / "boxes.json").write_text(json.dumps(tables))
    words = ["optimize", str(folder / "tiny.yaml"), "--out", str(tmp_path / "out"), "--cache", str(folder / "cache")]
    assert cli.main([*words, "--set", f"data.eval.path={tmp_path / 'boxes.json'}"]) == 2
    assert "annotations[3] (id 3): category_id is 9" in capsys.readouterr().err
    assert not (tmp_path / "out/report.json").exists()


@pytest.mark.build
@pytest.mark.xdist_group("tiny-detector")
def test_calibration_pictures_without_objects_are_told(tiny: tuple[Path, int, Report], tmp_path: Path) -> None:
    folder, _, _ = tiny
    for path in sorted((folder / "pictures").glob("train*")):
        image = cv2.imread(str(path))
        assert image is not None
        assert cv2.imwrite(str(tmp_path / path.name), (image * 0.2).astype(np.uint8))
    words = ["optimize", str(folder / "tiny.yaml"), "--out", str(tmp_path / "out"), "--cache", str(folder / "cache")]
    words += ["--set", "steps=[{quantize: {method: ptq}}]"]  # a cut network, untrained, is sure of nothing
    words += ["--set", "data.eval.only='eval0[0-5]*'"]  # so few that pictures unlike them are no error
    told = {}
    for pictures in (tmp_path, folder / "pictures"):
        assert cli.main([*words, "--set", f"data.calibration.source.path={pictures}/train*"]) == 0
        effects = {step.kind: step.effect for step in read_report(tmp_path / "out").steps}
        told[pictures] = str(effects["quantize"]["warnings"])
    assert "few-objects" not in told[folder / "pictures"]
    assert "few-objects: the float network is sure of 0 objects a picture here and of " in told[tmp_path]


HERE = ("host-onnxruntime", "host-openvino", "host-litert")


@pytest.mark.slow
def test_yolox_nano_to_five_targets(
    root: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ready recipe on real pictures, pruned as well. Without training that costs all of its AP, and is told so."""
    monkeypatch.setenv("EDGECV_DATA", str(shared_data))
    recipe = root / "recipes/detection/yolox-nano.yaml"
    words = ["optimize", str(recipe), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    words += ["--set", "measure.protocol=smoke", "--set", "data.calibration.samples=32"]
    words += ["--set", f"targets=[{', '.join(HERE)}, iphone-15, jetson-orin-nano]"]
    prune, tune, quantize = (
        "prune: {importance: magnitude, speedup: 1.3}",
        "finetune: {epochs: 0}",
        "quantize: {method: ptq}",
    )
    assert cli.main([*words, "--set", f"steps=[{{{prune}}}, {{{tune}}}, {{{quantize}}}]"]) == 3
    report = read_report(tmp_path / "out")
    assert {item.target for item in report.artifacts} >= {*HERE, "iphone-15", "jetson-orin-nano"}
    for item in report.artifacts:
        assert item.error == "", item.target
    floats = [item for item in report.artifacts if item.role == "float" and item.accuracy is not None]
    assert len(floats) == 3
    for item in floats:
        assert item.accuracy is not None
        assert item.accuracy.value == pytest.approx(0.3155, abs=0.004)
    for target in HERE:
        figures = optimized(report, target)
        assert figures.drop is not None
        assert figures.accuracy is not None
        assert figures.accuracy.samples == 44
    picture = cv2.imread(str(shared_data / "models/fastestdet/3.jpg"))
    with load_artifact(tmp_path / "out/host-openvino") as model:
        assert len(model.predict(picture)) > 0
