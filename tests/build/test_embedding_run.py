"""The whole line for embeddings: identities in, metric learning, an int8 network out, a gallery made and asked."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.report.schema import Report
from edgecv.report.schema_io import read_report
from edgecv.vision.plaques import plaque_view

RECIPE = """\
recipe: 1
name: plaques
model:
  source: python:edgecv.models.reference_embedding:embedding_cnn
  weights: {weights}
  input: {{size: [64, 64], mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25], resize: stretch}}
family: {{kind: embedding, labels: [plaque], options: {{loss: triplet, margin: 0.2}}}}
data:
  train: {{kind: identities, path: train}}
  eval: {{kind: identities-csv, path: eval.csv}}
  calibration: {{source: {{kind: identities, path: train}}, samples: 24, select: random}}
steps:
  - prune: {{ratio: 0.2, round_to: 2}}
  - finetune: {{epochs: 2, lr: 2.0e-4, batch_size: 24, distill: 0.0, augment: crop, validation: 0.2}}
  - quantize: {{method: ptq, scheme: portable}}
targets: [host-onnxruntime, host-openvino, host-litert, iphone-15]
budgets: {{accuracy: {{metric: recall1, min: 0.5}}}}
measure: {{protocol: smoke}}
"""
ENGINES = ("host-onnxruntime", "host-openvino", "host-litert")
IDENTITIES, EACH = 12, 5


def write_set(folder: Path) -> None:
    """Plaques to train on, and others to judge by: of each, two queries of one camera and three of others to find."""
    for number in range(8):
        (folder / "train" / f"plaque-{number}").mkdir(parents=True)
        for view in range(6):
            image = plaque_view(number, np.random.default_rng([number, view]))
            cv2.imwrite(str(folder / "train" / f"plaque-{number}" / f"{view}.png"), image)
    with (folder / "eval.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label", "role", "camera"])
        for number in range(IDENTITIES):
            for view in range(EACH):
                name = f"{number:02d}-{view}.png"
                image = plaque_view(2_000_000 + number, np.random.default_rng([number, view, 5]))
                cv2.imwrite(str(folder / name), image)
                rows.writerow([name, f"plaque {number}", "query" if view < 2 else "gallery", "a" if view < 2 else "b"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, root: Path) -> tuple[Path, Report]:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("plaques")
    write_set(folder)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(weights=root / "recipes/embedding/scenes-identities.safetensors"))
    out = folder / "out"
    assert cli.main(["optimize", str(recipe), "--out", str(out), "--cache", str(folder / "cache")]) == 0
    return folder, read_report(out)


@pytest.mark.build
@pytest.mark.xdist_group("plaques")
def test_strangers_are_found_again_in_int8(run: tuple[Path, Report]) -> None:
    """Of 24 queries two may be lost. The cut leaves the embedding as long as it was."""
    folder, report = run
    cut = next(step.effect for step in report.steps if step.kind == "prune")
    assert float(cut["macs_after"]) < 0.9 * float(cut["macs_before"])
    shapes = {read_manifest(folder / "out" / target).outputs[0].shape for target in ENGINES}
    assert shapes == {(1, 32)}
    made = {(item.target, item.precision): item for item in report.artifacts}
    for target in ENGINES:
        quantised, whole = made[target, "int8"], made[target, "fp32"]
        assert quantised.accuracy is not None
        assert whole.accuracy is not None
        assert quantised.accuracy.samples == 2 * IDENTITIES, "queries alone are judged"
        assert whole.accuracy.value >= 0.9
        assert quantised.accuracy.value >= whole.accuracy.value - 0.09
        assert quantised.accuracy.extras["recall5"] >= quantised.accuracy.value
    assert made["iphone-15", "int8"].error == ""


@pytest.mark.build
@pytest.mark.xdist_group("plaques")
def test_a_gallery_names_what_the_built_network_sees(
    run: tuple[Path, Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = run
    model, gallery = str(folder / "out" / "host-onnxruntime"), tmp_path / "plaques.npz"
    assert cli.main(["index", model, "--data", f"identities-csv:{folder}/eval.csv", "--out", str(gallery)]) == 0
    queries = [str(folder / f"{number:02d}-0.png") for number in range(IDENTITIES)]
    capsys.readouterr()
    assert cli.main(["run", model, *queries, "--gallery", str(gallery), "--json"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    right = [answer["classes"][0]["label"] == f"plaque {number}" for number, answer in enumerate(answers)]
    assert np.mean(right) >= 0.8
    other = str(folder / "out" / "host-openvino")
    assert cli.main(["run", other, queries[0], "--gallery", str(gallery)]) == 2
    assert "cannot be compared" in capsys.readouterr().err


@pytest.mark.build
@pytest.mark.xdist_group("plaques")
def test_the_camera_loop_tells_whom_each_frame_shows(run: tuple[Path, Report], tmp_path: Path) -> None:
    folder, _ = run
    for place, view in (("known", 2), ("seen", 3)):
        for number in range(IDENTITIES):
            image = plaque_view(2_000_000 + number, np.random.default_rng([number, view, 5]))
            where = tmp_path / place / (f"plaque {number}/0.png" if place == "known" else f"{number:02d}.png")
            where.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(where), image)
    said, film = tmp_path / "said.jsonl", tmp_path / "said.mp4"
    for target in ENGINES:
        words = ["run", "--model", str(folder / "out" / target), "--gallery", str(tmp_path / "known"), "--quiet"]
        words += ["--camera", str(tmp_path / "seen"), "--sink", f"jsonl={said}", "--sink", f"video={film}"]
        assert cli.main(words) == 0
        frames = [json.loads(line)["classes"][0] for line in said.read_text(encoding="utf-8").splitlines()]
        assert len(frames) == IDENTITIES
        right = [answer["label"] == f"plaque {number}" for number, answer in enumerate(frames)]
        assert np.mean(right) >= 0.8, target
        assert film.stat().st_size > 0
        said.unlink()


@pytest.mark.build
def test_osnet_knows_persons_of_coco_again(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each person twice: as it is, and moved, mirrored and darker. Chance would be one in 39."""
    pytest.importorskip("onnxruntime")
    place = shared_data / "coco-mini"
    table = json.loads((place / "instances.json").read_text(encoding="utf-8"))
    person = next(item["id"] for item in table["categories"] if item["name"] == "person")
    names = {item["id"]: item["file_name"] for item in table["images"]}
    count = 0
    for note in table["annotations"]:
        left, top, width, height = (round(value) for value in note["bbox"])
        if note["category_id"] != person or note["iscrowd"] or height < 96 or width < 40:
            continue
        image = cv2.imread(str(place / "images" / names[note["image_id"]]))
        part = image[max(0, top) : top + height, max(0, left) : left + width]
        other = cv2.flip(part[height // 20 :, width // 12 :], 1)
        views = {"gallery": part, "query": np.clip(other * 0.7, 0, 255).astype(np.uint8)}
        for role, view in views.items():
            (tmp_path / "set" / role / str(note["id"])).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / "set" / role / str(note["id"]) / "0.png"), view)
        count += 1
    file = shared_data / "models/osnet_x0_25_msmt17/osnet_x0_25_msmt17.onnx"
    words = ["import", str(file), "--out", str(tmp_path / "osnet"), "--family", "embedding", "--size", "256", "128"]
    numbers = ["--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225"]
    assert cli.main([*words, *numbers]) == 0
    capsys.readouterr()
    assert cli.main(["eval", str(tmp_path / "osnet"), "--data", f"identities:{tmp_path}/set", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["samples"] == count > 30
    assert figures["value"] > 0.8
    assert figures["value"] <= figures["extras"]["recall5"] <= figures["extras"]["recall10"]
