"""The camera loop of a classification artifact that a real run made, by command, with its overlay."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv import cli
from edgecv.core.artifact import read_manifest
from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader

from .conftest import DigitsRun

pytestmark = [pytest.mark.build, pytest.mark.xdist_group("digits")]


def test_the_loop_over_pictures_tells_the_digits_and_draws_them(digits_run: DigitsRun, tmp_path: Path) -> None:
    artifact = digits_run.out / "host-onnxruntime"
    labels = read_manifest(artifact).family.labels
    reader = open_reader(DataSpec("sklearn-digits", split="test", limit=20), base=tmp_path, labels=labels)
    samples = [reader[number] for number in range(len(reader))]
    large = [cv2.resize(sample.image, (160, 160), interpolation=cv2.INTER_LINEAR) for sample in samples]
    frames = [cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) for image in large]
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(frames):
        assert cv2.imwrite(str(tmp_path / "frames" / f"{number:02d}.png"), frame)
    said, film = tmp_path / "said.jsonl", tmp_path / "drawn.mp4"
    words = ["run", "--model", str(artifact), "--camera", str(tmp_path / "frames"), "--policy", "every", "--quiet"]
    assert cli.main([*words, "--sink", f"jsonl={said}", "--sink", f"video={film}"]) == 0
    lines = [json.loads(line) for line in said.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == len(samples)
    right = [line["classes"][0]["label"] == labels[sample.truth] for line, sample in zip(lines, samples, strict=True)]
    assert sum(right) >= 17, "the loop tells fewer digits than the artifact does"
    video = cv2.VideoCapture(str(film))
    for frame in frames:
        done, drawn = video.read()
        assert done
        change = np.abs(drawn.astype(int) - frame.astype(int)).max(axis=2)
        assert (change > 90).sum() > 60, "the label is drawn"
    video.release()
