"""Small folders of images, and what the tests of the data readers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.tensor import Array

Draw = Callable[..., Path]


def picture(seed: int, *, height: int = 24, width: int = 32) -> Array:
    """A smooth random picture `(height, width, 3)`, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth: Array = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return smooth


def encoded(image: Array, extension: str = ".png") -> bytes:
    """The bytes of an image file."""
    done, data = cv2.imencode(extension, image)
    assert done
    return bytes(data.tobytes())


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Makes a folder of classes: ``draw({"cat": 3, "dog": 2})`` -> its path."""

    def make(classes: dict[str, int], *, name: str = "set", extension: str = ".png", first: int = 0) -> Path:
        folder = tmp_path / name
        seed = first
        for label, count in classes.items():
            (folder / label).mkdir(parents=True)
            for index in range(count):
                (folder / label / f"{index:03d}{extension}").write_bytes(encoded(picture(seed), extension))
                seed += 1
        return folder

    return make


@pytest.fixture
def broken(draw: Draw) -> Path:
    """A class folder with two good images, and each kind of bad one."""
    folder = draw({"cat": 2})
    whole = encoded(picture(7, height=200, width=300), ".jpg")
    (folder / "cat" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "empty.jpg").write_bytes(b"")
    (folder / "cat" / "text.jpg").write_text("not an image, only named like one")
    return folder


@pytest.fixture(scope="session")
def contract() -> InputContract:
    """RGB, 32 x 32, normalised as ImageNet networks want it."""
    return InputContract(size=(32, 32), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.fixture(scope="session")
def gray() -> InputContract:
    """Gray, 32 x 32, 0..1."""
    return InputContract(size=(32, 32), color="gray", mean=(0.0,), std=(1.0,))


@pytest.fixture(scope="session")
def digit_labels() -> Sequence[str]:
    return ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="session")
def cifar_labels(shared_data: Path) -> Sequence[str]:
    return (shared_data / "cifar10-mini" / "labels.txt").read_text().split()
