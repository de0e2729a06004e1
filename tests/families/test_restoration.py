"""Restoration: what is a picture, how it is read, judged, learned and drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families import restoration
from edgecv.families.restoration_metric import planes
from edgecv.families.restoration_result import Restored
from edgecv.vision.draw import draw
from edgecv.vision.fidelity import EQUAL_DB, psnr_db, ssim

CONTRACT = InputContract(size=(24, 32))


def spec(**options: Any) -> FamilySpec:
    return FamilySpec("restoration", ("picture",), options=options)


def output(*shape: int) -> TensorSpec:
    return TensorSpec("out", shape, "float32", "OTHER")


def picture(height: int = 24, width: int = 32, *, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5)


def as_output(image: np.ndarray) -> np.ndarray:
    """What a network that speaks RGB from 0 to 1 gives for a BGR picture."""
    return image[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255


@pytest.mark.parametrize("shape", [(1, 3, 48, 64), (1, 48, 64, 3), (1, 1, 48, 64), (1, 48, 64, 1)])
def test_pictures_are_taken(shape: tuple[int, ...]) -> None:
    assert restoration.problems(spec(scale=2), [output(*shape)]) == []


def test_what_is_no_picture_is_named() -> None:
    assert "(1, C, h, w)" in restoration.problems(spec(), [output(1, 10)])[0]
    assert "(1, 5, 8, 8)" in restoration.problems(spec(), [output(1, 5, 8, 8)])[0]
    assert "Did you mean 'scale'" in restoration.problems(spec(scal=2), [output(1, 3, 8, 8)])[0]
    assert "whole number" in restoration.problems(spec(scale=1.5), [output(1, 3, 8, 8)])[0]
    assert "must differ" in restoration.problems(spec(range=[1, 1]), [output(1, 3, 8, 8)])[0]
    assert "take head away" in restoration.problems(replace(spec(), head="x"), [output(1, 3, 8, 8)])[0]


def test_decode_gives_the_picture_back_in_bgr() -> None:
    image = picture()
    assert (restoration.decode([as_output(image)], spec(), CONTRACT).picture == image).all()
    last = as_output(image).transpose(0, 2, 3, 1)
    assert (restoration.decode([last], spec(), CONTRACT).picture == image).all()
    found = restoration.decode([as_output(image) * 2 - 1], spec(range=[-1, 1]), CONTRACT)
    assert (found.picture == image).all()
    swapped = restoration.decode([as_output(image)], spec(color="bgr"), CONTRACT)
    assert (swapped.picture == image[:, :, ::-1]).all()


def test_values_beyond_black_and_white_are_cut_and_gray_is_spread() -> None:
    values = np.array([-0.5, 0.25, 1.7, 0.5], np.float32).reshape(1, 1, 2, 2)
    found = restoration.decode([values], spec(), InputContract(size=(2, 2), color="gray")).picture
    assert found[:, :, 0].ravel().tolist() == [0, 64, 255, 128]
    assert (found == found[:, :, :1]).all()


def test_a_joined_answer_is_as_large_as_the_picture() -> None:
    image = picture(100, 60)
    found = restoration.decode([as_output(image)], spec(scale=2), CONTRACT, picture=(50, 30))
    assert found.scale == 2
    assert (found.picture == image).all()


def test_without_tiles_the_answer_is_resized_back() -> None:
    small = picture()
    found = restoration.decode([as_output(small)], spec(tiles=False), CONTRACT, picture=(48, 64))
    assert found.picture.shape == (48, 64, 3)
    boxed = replace(CONTRACT, resize="letterbox")
    padded = small.copy()
    padded[:, :4] = padded[:, 28:] = 0  # what the letterbox adds beside a picture of 24 x 24
    found = restoration.decode([as_output(padded)], spec(tiles=False), boxed, picture=(24, 24))
    assert (found.picture == small[:, 4:28]).all()


def test_answers_that_do_not_fit_are_named() -> None:
    with pytest.raises(ModelError, match=r"Set family.options.scale"):
        restoration.decode([as_output(picture())], spec(scale=2), CONTRACT, picture=(50, 50))
    with pytest.raises(ModelError, match="NaN or infinite"):
        restoration.decode([np.full((1, 3, 24, 32), np.nan, np.float32)], spec(), CONTRACT)
    with pytest.raises(ModelError, match=r"\(1, 10\)"):
        restoration.decode([np.zeros((1, 10), np.float32)], spec(), CONTRACT)


def test_tiles_follow_the_options() -> None:
    assert restoration.tiling(spec(tiles=False), CONTRACT) is None
    usual = restoration.tiling(spec(scale=2), CONTRACT)
    assert usual is not None
    assert (usual.size, usual.overlap, usual.scale) == ((24, 32), 6, 2)
    chosen = restoration.tiling(spec(overlap=10), CONTRACT)
    assert chosen is not None
    assert chosen.overlap == 10


def test_pictures_that_are_near_agree() -> None:
    image = picture()
    other = cv2.add(image, np.full_like(image, 2))
    assert restoration.agree(Restored(image), Restored(other))
    assert not restoration.agree(Restored(image), Restored(255 - image))
    assert not restoration.agree(Restored(image), Restored(image[:-1]))


def test_psnr_by_its_formula() -> None:
    one = np.full((20, 20, 3), 100.0)
    assert psnr_db(one, one + 5) == pytest.approx(10 * np.log10(255**2 / 25))
    assert psnr_db(one, one) == EQUAL_DB


def test_luma_is_that_of_bt601() -> None:
    colours = {(255, 255, 255): 235.0, (0, 0, 0): 16.0, (0, 0, 255): 81.481, (0, 255, 0): 144.553, (255, 0, 0): 40.966}
    for bgr, wanted in colours.items():
        found = planes(np.full((11, 11, 3), bgr, np.uint8), luma=True, border=0)
        assert found[0, 0, 0] == pytest.approx(wanted, abs=1e-3)


def test_ssim_against_its_definition_taken_literally() -> None:
    one, other = (picture(16, 14, seed=seed)[:, :, :1].astype(np.float64) for seed in (1, 2))
    axis = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = np.outer(axis, axis) / axis.sum() ** 2
    found = []
    for top in range(6):
        for left in range(4):
            x, y = (item[top : top + 11, left : left + 11, 0] for item in (one, other))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
            both = (window * (x - mean_x) * (y - mean_y)).sum()
            c1, c2 = 6.5025, 58.5225
            found.append(
                (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
            )
    assert ssim(one, other) == pytest.approx(np.mean(found), abs=1e-9)
    flat = np.full((16, 14, 1), 100.0)
    assert ssim(flat, flat + 20) == pytest.approx((2 * 100 * 120 + 6.5025) / (100**2 + 120**2 + 6.5025))
    assert ssim(one, one) == pytest.approx(1.0)


def test_the_metric_is_a_mean_over_pictures() -> None:
    metric = restoration.metric(spec(), "psnr")
    image = np.full((20, 20, 3), 100, np.uint8)
    metric.update(Restored(image), image + 1)
    metric.update(Restored(image), image + 5)
    figures = metric.compute()
    wanted = [10 * np.log10(255**2 / error**2) for error in (1, 5)]
    assert figures.per_sample == pytest.approx(wanted)
    assert figures.value == pytest.approx(np.mean(wanted))
    assert set(figures.extras) == {"ssim"}
    assert figures.interval is not None
    assert wanted[1] <= figures.interval.low <= figures.value <= figures.interval.high <= wanted[0]


def test_a_network_that_enlarges_is_judged_on_luma_without_the_border() -> None:
    reference = picture(40, 40)
    found = reference.copy()
    found[:2] = found[-2:] = found[:, :2] = found[:, -2:] = 0
    found[20, 20, 0] ^= 8  # a little blue: much in the mean over channels, little in luma
    values = {}
    for name, options in {"usual": {}, "all": {"luma": False, "border": 0}, "channels": {"luma": False}}.items():
        metric = restoration.metric(spec(scale=2, **options), "psnr")
        metric.update(Restored(found, 2), reference)
        values[name] = metric.compute().value
    assert values["usual"] > values["channels"] > values["all"]


def test_what_cannot_be_judged_is_named() -> None:
    with pytest.raises(UsageError, match="psnr, ssim"):
        restoration.metric(spec(), "top1")
    metric = restoration.metric(spec(scale=2), "psnr")
    with pytest.raises(DataError, match=r"family.options.scale \(2\)"):
        metric.update(Restored(picture(40, 40), 2), picture(41, 40))
    with pytest.raises(DataError, match="11 x 11"):
        metric.update(Restored(picture(14, 40), 2), picture(14, 40))
    with pytest.raises(DataError, match="at least one"):
        metric.compute()


def test_the_loss_is_the_mean_absolute_error() -> None:
    torch = pytest.importorskip("torch")
    truths = [picture(8, 8, seed=seed) for seed in (0, 1)]
    outputs = torch.from_numpy(np.concatenate([as_output(truth) for truth in truths]))
    assert float(restoration.loss(outputs, truths, spec(), label_smoothing=0.0)) == pytest.approx(0.0, abs=1e-6)
    shifted = restoration.loss(outputs + 0.25, truths, spec(), label_smoothing=0.0)
    assert float(shifted) == pytest.approx(0.25, abs=1e-6)
    smooth = restoration.loss(outputs + 0.25, truths, spec(loss="charbonnier"), label_smoothing=0.0)
    assert float(smooth) == pytest.approx((0.25**2 + 1e-6) ** 0.5, abs=1e-6)
    swapped = restoration.loss(outputs, truths, spec(color="bgr"), label_smoothing=0.0)
    assert float(swapped) > 0.01
    with pytest.raises(ModelError, match="so much larger than its input"):
        restoration.loss(outputs, [truth[:4] for truth in truths], spec(), label_smoothing=0.0)


def test_a_result_in_words_and_json() -> None:
    result = Restored(picture(48, 64), 2)
    assert result.words() == "restored picture of 64 x 48 pixels, 2 times as large"
    plain = json.loads(json.dumps(result.to_dict()))["picture"]
    assert (plain["width"], plain["height"], plain["scale"], len(plain["sha256"])) == (64, 48, 2, 64)
    assert plain != Restored(255 - result.picture, 2).to_dict()["picture"]


def test_before_and_after_share_a_frame() -> None:
    frame = np.full((240, 320, 3), 30, np.uint8)
    draw(frame, Restored(np.full((240, 320, 3), 200, np.uint8)))
    assert (frame[20:180, 10:150] == 30).all()
    assert (frame[20:180, 170:310] == 200).all()


def test_a_larger_picture_is_shown_at_its_own_pixels() -> None:
    fine = np.zeros((480, 640, 3), np.uint8)
    fine[:, ::2] = 255  # lines of one pixel, which a frame of half the size cannot hold
    frame = np.full((240, 320, 3), 127, np.uint8)
    draw(frame, Restored(fine, 2))
    shown = frame[100:180, 180:300, 0].astype(int)
    assert np.abs(np.diff(shown, axis=1)).min() > 200
    assert (frame[100:180, 10:140] == 127).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (20, 9)])
def test_tiny_frames_are_drawn_without_a_fault(size: tuple[int, int]) -> None:
    frame = np.zeros((*size, 3), np.uint8)
    draw(frame, Restored(np.full((2 * size[0], 2 * size[1], 3), 200, np.uint8), 2))
    draw(frame, Restored(np.full((*size, 3), 200, np.uint8)))


def test_likeness_is_the_structural_similarity() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    assert Restored(picture).likeness(Restored(picture)) == pytest.approx(1.0)
    assert Restored(picture).likeness(Restored(255 - picture)) < 0.1
    assert Restored(picture).likeness(Restored(picture[:12])) == 0.0
