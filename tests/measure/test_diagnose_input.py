"""What made a network input is found by trying, whatever made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.tensor import Quantization, TensorSpec
from edgecv.measure.diagnose_input import diagnose_input, explain
from edgecv.vision.image import preprocess
from edgecv.vision.scenes import Scene, SceneSpec

BASE = InputContract((64, 96), color="rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize="letterbox")
PICTURES = [Scene(SceneSpec(size=size, seed=5)).frame(60).image for size in ((120, 255), (200, 90), (100, 100))]


def inputs(contract: InputContract, pictures: Sequence[np.ndarray] = PICTURES) -> np.ndarray:
    return np.stack([preprocess(picture, contract) for picture in pictures])


def names(expected: InputContract, found: InputContract) -> dict[str, tuple[str, str]]:
    causes = diagnose_input(inputs(expected), inputs(found), PICTURES, found)
    assert {cause.rung for cause in causes} == {"pre-processing"}
    return {cause.what: (cause.found, cause.expected) for cause in causes}


@pytest.mark.parametrize(
    ("change", "what", "found"),
    [
        ({"mean": (0.5, 0.5, 0.5)}, "mean", "[0.5, 0.5, 0.5]"),
        ({"std": (1.0, 1.0, 1.0)}, "std", "[1, 1, 1]"),
        ({"range": (0.0, 255.0)}, "range", "[0, 255]"),
        ({"color": "bgr"}, "channel order", "bgr"),
        ({"resize": "stretch"}, "resize", "stretch"),
        ({"resize": "letterbox-topleft"}, "resize", "letterbox-topleft"),
        ({"resize": "crop", "crop_ratio": 1.0}, "resize", "crop"),
        ({"interpolation": "nearest"}, "interpolation", "nearest"),
        ({"interpolation": "area"}, "interpolation", "area"),
        ({"pad_value": 0}, "pad_value", "0"),
    ],
)
def test_one_wrong_setting_is_the_only_cause(change: dict[str, Any], what: str, found: str) -> None:
    """Planted in what is fed, and, the other way round, in what was expected."""
    other = replace(BASE, **change)
    there, back = names(BASE, other), names(other, BASE)
    assert list(there) == list(back) == [what]
    assert there[what][0] == back[what][1] == found
    assert there[what][1] == back[what][0]


def test_another_crop_ratio_is_named() -> None:
    crop = replace(BASE, resize="crop", crop_ratio=0.875)
    causes = names(crop, replace(crop, crop_ratio=1.0))
    assert causes["crop_ratio"] == ("1", "0.875")


def test_three_faults_together_are_all_named() -> None:
    other = replace(BASE, color="bgr", resize="stretch", mean=(0.0, 0.0, 0.0))
    assert set(names(BASE, other)) == {"channel order", "resize", "mean"}


def test_a_gray_picture_hides_the_order_and_nothing_is_made_up() -> None:
    gray = [np.repeat(picture.mean(axis=2).astype(np.uint8)[..., None], 3, axis=2) for picture in PICTURES]
    found = explain(inputs(BASE, gray), gray, BASE)
    assert found is not None
    assert found.order == (0, 1, 2)


def test_one_channel_is_explained_too() -> None:
    gray = replace(BASE, color="gray", mean=(0.5,), std=(0.25,))
    assert names(gray, replace(gray, mean=(0.1,))) == {"mean": ("[0.1]", "[0.5]")}


def test_a_quantised_input_is_explained_through_its_rounding() -> None:
    spec = TensorSpec("x", (1, 3, 64, 96), "int8", "NCHW", Quantization(0.0186, -14))
    wrong = replace(BASE, color="bgr")
    fed = spec.dequantize(spec.quantize(inputs(wrong)))
    causes = diagnose_input(inputs(BASE), fed, PICTURES, wrong)
    assert [(cause.what, cause.found, cause.expected) for cause in causes] == [("channel order", "bgr", "rgb")]


@pytest.mark.parametrize("move", [(0, 1), (0, -1), (1, 0), (-1, 0), (2, 1)])
def test_an_input_that_was_moved_is_off_by_so_much(move: tuple[int, int]) -> None:
    expected = inputs(BASE)
    fed = np.roll(expected, move, axis=(2, 3))
    causes = diagnose_input(expected, fed, PICTURES, BASE)
    assert [cause.what for cause in causes] == ["letterbox offset (rows from the top, columns from the left)"]
    place = explain(expected, PICTURES, BASE)
    assert place is not None
    top, left = (int(word) for word in causes[0].expected.strip("()").split(","))
    assert causes[0].found == str((top + move[0], left + move[1]))


def test_what_nothing_explains_is_said_so() -> None:
    noise = np.random.default_rng(0).random(inputs(BASE).shape, dtype=np.float32)
    (cause,) = diagnose_input(inputs(BASE), noise, PICTURES, BASE)
    assert cause.what == "the network input is of another kind"
    assert "the engine's input" in cause.evidence
