"""Model files of others through `edgecv import` and `edgecv eval` or `edgecv run`: ours beside what is known of them.

Each row is a .tflite or .onnx file of the test data (EDGECV_TEST_DATA), taken in and judged by the commands that a user
would type. The figure it is held against is that of the data pack's manifest, measured there with the publisher's own
pre-processing; the source of each file stands in the manifest too. Where the manifest has no figure, the file has to
load, run and give what its family says.

    python tools/bench/imported.py [NAME ...]
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from imported_parts import (
    WHOLE,
    YOLOX,
    YOLOX_WORDS,
    Place,
    Row,
    answers,
    both,
    coco_names,
    evaluated,
    labels_in,
    measured,
    names,
    nothing,
)
from imported_street import cosines, found_again

from edgecv.data.imagefile import load_image

IMAGENET_CLOSE = 0.02
"""The manifest names no filter for the ImageNet pictures; those of OpenCV and Pillow differ by up to 0.02 on them."""
PIXELS = "--range -1 0.9921875"
"""With the scale 1/128 and the zero point 128 of those files the stored numbers are the pixels themselves."""


def person_or_not(place: Place) -> list[str]:
    """``--labels`` of Visual Wake Words, and its truths of coco-mini: a person larger than 0.5 % of the picture."""
    table = json.loads((place.data / "coco-mini/instances.json").read_text(encoding="utf-8"))
    person = next(item["id"] for item in table["categories"] if item["name"] == "person")
    with (place.scratch / "wake.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label"])
        for image in table["images"]:
            enough = 0.005 * image["width"] * image["height"]
            sizes = [
                note["area"]
                for note in table["annotations"]
                if note["image_id"] == image["id"] and note["category_id"] == person
            ]
            rows.writerow([image["file_name"], "person" if any(size > enough for size in sizes) else "nobody"])
    return names("nobody", "person")(place)


def imagenet(place: Place) -> str:
    """The 500 pictures of imagenet-samples."""
    return f"csv:{place.data}/imagenet-samples/labels.csv,label_column=class_index_0_999"


def cifar(place: Place) -> str:
    """The test pictures of cifar10-mini."""
    return f"imagefolder:{place.data}/cifar10-mini/test"


def wake(place: Place) -> str:
    """The 55 pictures of coco-mini with `person_or_not`."""
    return f"csv:{place.scratch}/wake.csv,root={place.data}/coco-mini/images"


def val2017(place: Place) -> str:
    """The 44 pictures of coco-mini that COCO keeps for judging."""
    return f"coco:{place.data}/coco-mini/instances.json,root={place.data}/coco-mini/images,only=val2017"


def bird(place: Place) -> str:
    """The picture that the publisher of the DeepLab files gives with its mask."""
    folder = place.data / "segmentation-ref"
    return f"masks:{folder}/bird*.bmp,truth={folder}/{{stem}}_mask.bmp"


def faces_found(artifact: Path, place: Place) -> float:
    """On how many of the three pictures as many faces are found as are in them."""
    files = {1: "1face", 3: "3faces", 4: "4faces"}
    found = answers(artifact, *(place.data / "faces/images" / f"{name}.png" for name in files.values()))
    return float(sum(len(answer["objects"]) == count for answer, count in zip(found, files, strict=True)))


def squat_error(artifact: Path, place: Place) -> float:
    """Mean distance in x and y, as a share of the picture, to the publisher's own answer."""
    folder = place.data / "pose-ref"
    height, width = load_image(folder / "squat.bmp", noisy=False).shape[:2]
    (answer,) = answers(artifact, folder / "squat.bmp")
    with (folder / "movenet_single_pose_lightning_ptq_reference.csv").open(encoding="utf-8") as stream:
        wanted = [(float(row["keypoint_x"]), float(row["keypoint_y"])) for row in csv.DictReader(stream)]
    points = np.array(answer["poses"][0]["keypoints"])[:, :2] / [width, height]
    return float(np.abs(points - np.array(wanted)).mean())


def runs_on(*pictures: str) -> Callable[[Path, Place], float]:
    """The share of ``pictures`` that are answered."""

    def judge(artifact: Path, place: Place) -> float:
        files = [file for pattern in pictures for file in sorted(place.data.glob(pattern))]
        return len(answers(artifact, *files)) / len(files)

    return judge


def _classifier(name: str, file: str, known: float, words: str) -> Row:
    labels = labels_in("models/mobilenet_v2_1.0_224_quant/imagenet_labels.txt", skip=1)
    said = both(labels, f"--resize crop --background --outputs probabilities {words}")
    return Row(name, file, "classification", "top1", said, evaluated("top1", imagenet), known, IMAGENET_CLOSE)


def _cifar(name: str, file: str, known: float) -> Row:
    said = both(labels_in("cifar10-mini/labels.txt"), "--size 32 32 --range 0 255 --outputs probabilities")
    place = f"mlperf_tiny_resnet8_cifar10/{file}"
    return Row(name, place, "classification", "top1", said, evaluated("top1", cifar), known)


def _wake(name: str, file: str) -> Row:
    said = both(person_or_not, "--size 96 96 --interpolation area --outputs probabilities")
    return Row(name, f"mlperf_tiny_vww/{file}", "classification", "top1", said, evaluated("top1", wake), 0.836)


def _hand(name: str, file: str, table: str, count: int, known: float) -> Row:
    said = both(labels_in(f"gestures-mini/{table}_labels.csv"), f"--vector {count} --outputs probabilities")
    judge = evaluated("top1", lambda place: f"vectors:{place.data}/gestures-mini/{table}.csv")
    return Row(name, file, "classification", "top1", said, judge, known)


def _deeplab(name: str, known: float) -> Row:
    labels = labels_in("segmentation-ref/pascal_voc_segmentation_labels.txt")
    said, judge = both(labels, f"--size 513 513 {PIXELS} --head classmap"), evaluated("pixel_accuracy", bird)
    return Row(name, f"{name}/{name}.tflite", "segmentation", "pixel_accuracy", said, judge, known, 0.001)


def _faces(name: str, file: str, words: str) -> Row:
    said = both(names("face"), words)
    return Row(name, file, "detection", "pictures of 3", said, faces_found, 3.0, 0.0)


def _osnet(metric: str, judge: Callable[[Path, Place], float], known: float | None, within: float) -> Row:
    file = "osnet_x0_25_msmt17/osnet_x0_25_msmt17.onnx"
    said = both(nothing, "--size 256 128 --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225")
    return Row(f"osnet, {metric}", file, "embedding", metric, said, judge, known, within)


MOBILENET = "mobilenet_v1_0.25_224/mobilenet_v1_0.25_224"
ROWS = (
    _classifier(
        "mobilenet-v2-int8",
        "mobilenet_v2_1.0_224_quant/mobilenet_v2_1.0_224_quant.tflite",
        0.896,
        f"--size 224 224 {PIXELS}",
    ),
    _classifier(
        "mobilenet-v1-0.5-int8",
        "mobilenet_v1_0.5_160_quant/mobilenet_v1_0.5_160_quant.tflite",
        0.700,
        f"--size 160 160 {PIXELS}",
    ),
    _classifier("mobilenet-v1-0.25", f"{MOBILENET}_float.tflite", 0.568, "--size 224 224 --range -1 1"),
    _classifier("mobilenet-v1-0.25-int8", f"{MOBILENET}_quant.tflite", 0.564, f"--size 224 224 {PIXELS}"),
    _cifar("resnet8", "pretrainedResnet.tflite", 0.751),
    _cifar("resnet8-int8", "pretrainedResnet_quant.tflite", 0.752),
    _wake("vww", "vww_96_float.tflite"),
    _wake("vww-int8", "vww_96_int8.tflite"),
    _hand("hand-keypoints", "hand_keypoint_classifier/keypoint_classifier.tflite", "keypoint", 42, 0.974),
    _hand("hand-history", "hand_point_history_classifier/point_history_classifier.tflite", "point_history", 32, 0.961),
    Row(
        "fastestdet",
        "fastestdet/FastestDet.onnx",
        "detection",
        "ap",
        both(coco_names, "--size 352 352 --color bgr --interpolation area --head fastestdet --score 0.01"),
        evaluated("ap", val2017),
        0.160,
        0.015,  # ours cuts boxes at the picture's edges, which the manifest's loop did not
    ),
    Row(
        "yolox-nano",
        YOLOX,
        "detection",
        "ap",
        both(coco_names, f"{YOLOX_WORDS} --score 0.01 --iou 0.65"),
        evaluated("ap", val2017),
        0.319,
    ),
    _faces(
        "ultraface",
        "ultraface_rfb_320/version-RFB-320.onnx",
        "--size 240 320 --range 0 255 --mean 127 127 127 --std 128 128 128 --head ultraface --score 0.7 --iou 0.4",
    ),
    _faces(
        "yunet",
        "yunet_n_320/yunet_n_320_320.onnx",
        f"--size 320 320 {WHOLE} --pad-value 0 --head yunet --score 0.6 --iou 0.4",
    ),
    Row(
        "movenet-int8",
        "movenet_lightning_ptq/movenet_single_pose_lightning_ptq.tflite",
        "pose",
        "mean error",
        both(nothing, "--size 192 192 --range 0 255 --head movenet"),
        squat_error,
        0.009,
        0.002,
    ),
    _deeplab("deeplabv3_mnv2_dm05_pascal_quant", 0.961),
    _deeplab("deeplabv3_mnv2_pascal_quant", 0.979),
    Row(
        "sinet",
        "sinet_portrait/SINet.onnx",
        "segmentation",
        "answered",
        both(
            names("background", "person"),
            "--size 320 320 --color bgr --range 0 255 --mean 102.890434 111.25247 126.91212 "
            "--std 16047.8946 16019.4531 16920.7047 --head logits",
        ),
        runs_on("faces/images/uf_*.jpg"),
        1.0,
        0.0,
    ),
    Row(
        "sci",
        "sci_240x320/sci_240x320.onnx",
        "restoration",
        "answered",
        both(nothing, "--size 240 320"),
        runs_on("restoration-mini/lowlight_dicm/*"),
        1.0,
        0.0,
    ),
    # The manifest's pairs are of another detector and video.
    _osnet("same", lambda artifact, place: float(np.mean(cosines(artifact, place)[0])), 0.94, 0.05),
    _osnet("others", lambda artifact, place: float(np.mean(cosines(artifact, place)[1])), 0.52, 0.05),
    _osnet("recall1", found_again, None, 0.0),
)


def main(asked: list[str]) -> int:
    """Print a line for each file; 1 where a figure is not the known one."""
    data = Path(os.environ["EDGECV_TEST_DATA"]).resolve()
    wrong = 0
    print(f"{'file':34} {'family':15} {'metric':15} {'known':>7} {'ours':>7}")
    for row in ROWS:
        if asked and row.name not in asked:
            continue
        ours = measured(row, data)
        fine = row.known is None or abs(ours - row.known) <= row.within
        wrong += not fine
        known = "-" if row.known is None else f"{row.known:.3f}"
        said = "" if fine else "  differs"
        print(f"{row.name:34} {row.family:15} {row.metric:15} {known:>7} {ours:7.3f}{said}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
