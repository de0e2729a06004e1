"""Bad input through the command line: its own clear message, the right exit code, nothing half-written."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from edgecv import cli

pytestmark = pytest.mark.build


class Bomb:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /tmp/edgecv-pickle-ran",)


@pytest.fixture
def recipe(root: Path, tmp_path: Path) -> dict[str, object]:
    """The digits recipe as values, with absolute paths, on one target, without steps."""
    folder = root / "recipes" / "classification"
    values: dict[str, object] = yaml.safe_load((folder / "digits.yaml").read_text(encoding="utf-8"))
    values["model"]["weights"] = str(folder / "digits.safetensors")  # type: ignore[index]
    return {**values, "steps": [], "targets": ["host-onnxruntime"], "measure": {"protocol": "smoke"}, "budgets": {}}


def run(recipe: dict[str, object], folder: Path, *more: str) -> int:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    words = ["optimize", str(folder / "recipe.yaml"), "--out", str(folder / "out"), "--cache", str(folder / "cache")]
    return cli.main([*words, *more])


def nothing_is_left(folder: Path) -> bool:
    """No artifact, no finished or half step; only the log may be there."""
    kept = [path for path in (folder / "out").rglob("*") if path.name != "edgecv.log"]
    steps = [path for part in ("steps", "work") for path in (folder / "cache" / part).glob("*") if path.is_file()]
    half = list((folder / "cache" / "work").glob("*"))
    return not kept and not steps and not half


def test_a_pickle_with_code_is_not_run(
    recipe: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("/tmp/edgecv-pickle-ran").unlink(missing_ok=True)
    (tmp_path / "weights.pth").write_bytes(pickle.dumps({"state_dict": Bomb()}))
    recipe["model"]["weights"] = str(tmp_path / "weights.pth")  # type: ignore[index]
    assert run(recipe, tmp_path) == 6
    assert "weights.pth" in capsys.readouterr().err
    assert not Path("/tmp/edgecv-pickle-ran").exists()
    assert nothing_is_left(tmp_path)


def test_a_corrupt_safetensors_file(
    recipe: dict[str, object], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (root / "recipes" / "classification" / "digits.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(good[: len(good) // 2])
    recipe["model"]["weights"] = str(tmp_path / "weights.safetensors")  # type: ignore[index]
    assert run(recipe, tmp_path) == 6
    assert "weights.safetensors" in capsys.readouterr().err
    assert nothing_is_left(tmp_path)


def test_a_model_whose_output_does_not_fit_the_family(
    recipe: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe["model"]["source"] = "torchvision:resnet18"  # type: ignore[index]
    recipe["model"]["options"] = {"num_classes": 7}  # type: ignore[index]
    recipe["model"]["weights"] = None  # type: ignore[index]
    recipe["model"]["input"] = {"size": [32, 32], "color": "rgb"}  # type: ignore[index]
    assert run(recipe, tmp_path) == 2
    shown = capsys.readouterr().err
    assert "7" in shown
    assert "10" in shown
    assert nothing_is_left(tmp_path)


def test_weights_of_another_network_show_a_readable_difference(
    recipe: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"other.weight": torch.zeros(3)}, str(tmp_path / "weights.safetensors"))
    recipe["model"]["weights"] = str(tmp_path / "weights.safetensors")  # type: ignore[index]
    assert run(recipe, tmp_path) == 2
    shown = capsys.readouterr().err
    assert "missing" in shown
    assert "other.weight" in shown
    assert nothing_is_left(tmp_path)


def test_a_missing_model_function(
    recipe: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe["model"]["source"] = "python:edgecv.models.reference:digits_cnm"  # type: ignore[index]
    assert run(recipe, tmp_path) == 2
    assert "digits_cnn" in capsys.readouterr().err
    assert nothing_is_left(tmp_path)


def test_a_calibration_manifest_whose_hashes_differ(
    recipe: dict[str, object], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = yaml.safe_load((root / "calibration" / "digits-128.yaml").read_text(encoding="utf-8"))
    values["name"] = "changed"
    values["files"][5]["sha256"] = "0" * 64
    (tmp_path / "changed.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    recipe["data"]["calibration"] = "changed.yaml"  # type: ignore[index]
    recipe["steps"] = [{"quantize": {"method": "ptq"}}]
    assert run(recipe, tmp_path) == 6
    assert values["files"][5]["id"] in capsys.readouterr().out + (tmp_path / "out" / "report.md").read_text()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """An image folder of ten classes with three files that are no pictures."""
    labels = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    random = np.random.default_rng(0)
    for label in labels:
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True)
        for number in range(7):
            cv2.imwrite(str(folder / f"{number}.png"), random.integers(0, 256, (20, 20, 3), dtype=np.uint8))
    good = (tmp_path / "pictures" / "one" / "0.png").read_bytes()
    (tmp_path / "pictures" / "one" / "broken.png").write_bytes(good[:200])
    (tmp_path / "pictures" / "two" / "empty.jpg").write_bytes(b"")
    (tmp_path / "pictures" / "three" / "text.jpg").write_text("not a picture", encoding="utf-8")
    return tmp_path / "pictures"


def test_unreadable_pictures_are_skipped_with_a_count_or_refused(
    recipe: dict[str, object], tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe["data"] = {"eval": {"kind": "imagefolder", "path": str(pictures)}}
    assert run(recipe, tmp_path) == 0
    capsys.readouterr()
    data = ["--data", f"imagefolder:{pictures}"]
    artifact = str(tmp_path / "out" / "host-onnxruntime")
    assert cli.main(["eval", artifact, *data]) == 0
    shown = capsys.readouterr()
    assert "3 files were skipped" in shown.err
    assert "on 70 samples" in shown.out
    assert cli.main(["eval", artifact, *data, "--strict"]) == 2
    shown = capsys.readouterr()
    assert all(name in shown.err for name in ("broken.png", "empty.jpg", "text.jpg"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(
    recipe: dict[str, object], tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(recipe, tmp_path, "--cache", str(small_disk)) == 5
    shown = capsys.readouterr()
    assert "no space is left" in shown.err + shown.out
    assert not list((small_disk / "work").glob("*"))
    assert not (tmp_path / "out" / "host-onnxruntime").exists()


def test_a_read_only_output_folder(
    recipe: dict[str, object], tmp_path: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert run(recipe, tmp_path, "--out", str(small_disk / "out")) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "cache" / "steps").exists()


def test_a_missing_toolchain(recipe: dict[str, object], tmp_path: Path) -> None:
    """OpenVINO is hidden from a fresh process, as on a machine where it was never installed."""
    recipe["targets"] = ["host-openvino", "host-onnxruntime"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    words = ["optimize", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "c")]
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'openvino' else find(name, package)\n"
        f"from edgecv import cli; sys.exit(cli.main({words!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "edgecv[" in done.stdout + done.stderr
    assert (tmp_path / "out" / "host-onnxruntime" / "manifest.json").is_file()
    assert not (tmp_path / "out" / "host-openvino").exists()
