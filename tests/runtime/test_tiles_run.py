"""Pictures of other sizes than the network, in tiles: single ones, the loop, the evaluation, the command line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.cli import main
from edgecv.core.contract import InputContract
from edgecv.core.frame import Frame
from edgecv.core.recipe import FamilySpec
from edgecv.core.stream import StreamFacts
from edgecv.core.trace import Trace
from edgecv.errors import ModelError, UsageError
from edgecv.measure.latency import LatencyPlan, measure_latency
from edgecv.runtime.importer import import_model
from edgecv.runtime.load import load_artifact
from edgecv.runtime.session import open_session
from edgecv.runtime.spec import PipelineSpec

onnx = pytest.importorskip("onnx")
TILE = 16
NEAREST = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}


def picture(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def enlarged(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, axis=0).repeat(2, axis=1)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that doubles each pixel of a tile."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest", **NEAREST)],
        "double",
        [helper.make_tensor_value_info("x", kind, [1, 3, TILE, TILE])],
        [helper.make_tensor_value_info("y", kind, [1, 3, 2 * TILE, 2 * TILE])],
        [helper.make_tensor("scales", kind, [4], [1.0, 1.0, 2.0, 2.0])],
    )
    path = tmp_path_factory.mktemp("double") / "double.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def artifact(model_file: Path) -> Path:
    family = FamilySpec("restoration", ("picture",), options={"scale": 2, "overlap": 4})
    contract = InputContract(size=(TILE, TILE), resize="crop")
    return import_model(model_file, out=model_file.parent / "artifact", name="double", family=family, contract=contract)


@pytest.mark.parametrize("size", [(16, 16), (40, 57), (5, 30), (1, 1)])
def test_every_size_comes_back_twice_as_large(artifact: Path, size: tuple[int, int]) -> None:
    image, trace = picture(*size), Trace()
    with load_artifact(artifact) as model:
        plain, traced = model.predict(image), model.predict(image, trace=trace)
    assert (plain.picture == enlarged(image)).all()
    assert (traced.picture == plain.picture).all()
    assert set(trace.stages_ms) == {"preprocess", "infer", "decode"}


def test_a_loop_over_frames_of_two_sizes(artifact: Path) -> None:
    images = [picture(40, 57, seed=1), picture(20, 18, seed=2), picture(40, 57, seed=3)]

    class Source:
        def __init__(self) -> None:
            self.index = 0

        def open(self) -> StreamFacts:
            return StreamFacts("memory", (40, 57), 30.0, False, len(images))

        def read(self) -> Frame | None:
            if self.index == len(images):
                return None
            self.index += 1
            return Frame(images[self.index - 1], time.monotonic(), self.index - 1, "memory", self.index / 30)

        def close(self) -> None:
            pass

    with open_session(PipelineSpec(model=(str(artifact),)), source=Source) as session:
        results = [item.result for item in session]
    assert [result.picture.shape for result in results] == [(80, 114, 3), (40, 36, 3), (80, 114, 3)]
    assert all((result.picture == enlarged(image)).all() for result, image in zip(results, images, strict=True))


def test_times_are_of_the_whole_picture(artifact: Path) -> None:
    plan = LatencyPlan(min_runs=4, min_s=0.0, warmup_runs=1, warmup_s=0.0, warmup_max_s=0.1, quick=True)
    with load_artifact(artifact) as model:
        figures = measure_latency(model.subject, [picture(64, 64)], fps=None, plan=plan)
    assert figures.model.p50_ms <= figures.with_copies.p50_ms <= figures.end_to_end.p50_ms


def test_results_are_saved_as_pictures(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = picture(30, 20)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert main(["run", str(artifact), str(tmp_path / "a.png"), "--save", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["picture"]["height"] == 60
    assert (cv2.imread(str(tmp_path / "out" / "a.png")) == enlarged(image)).all()
    folder = tmp_path / "frames"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), image)
    words = ["run", str(artifact), "--camera", str(folder), "--save", str(tmp_path / "loop"), "--quiet"]
    assert main(words) == 0
    assert (cv2.imread(str(tmp_path / "loop" / "00000000.png")) == enlarged(image)).all()


def test_a_result_never_replaces_its_picture(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), picture(20, 20))
    assert main(["run", str(artifact), str(tmp_path / "a.png"), "--save", str(tmp_path)]) == UsageError.exit_code
    assert "would replace" in capsys.readouterr().err
    both = [str(tmp_path / "a.png"), str(tmp_path / "b/a.png")]
    assert main(["run", str(artifact), *both, "--save", str(tmp_path / "out")]) == UsageError.exit_code
    assert "same name" in capsys.readouterr().err


def test_a_model_that_enlarges_otherwise_is_refused(model_file: Path, tmp_path: Path) -> None:
    family = FamilySpec("restoration", ("picture",), options={"scale": 3})
    with pytest.raises(ModelError, match=r"Set family.options.scale to what the model enlarges by"):
        import_model(model_file, out=tmp_path / "x", name="x", family=family, contract=InputContract(size=(TILE, TILE)))


def test_evaluation_on_pairs(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(2):
        image = picture(30 + index, 40, seed=index)
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "out").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"in/{index}x2.png"), image)
        cv2.imwrite(
            str(tmp_path / f"out/{index}.png"), np.clip(enlarged(image).astype(int) + 1, 0, 255).astype(np.uint8)
        )
    data = f"pairs:{tmp_path / 'in'},truth={tmp_path / 'out'}"
    assert main(["eval", str(artifact), "--data", data, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    # One step in each channel is 219 / 255 of one in luma.
    assert figures["value"] == pytest.approx(20 * np.log10(255 / (219 / 255)), abs=0.2)
