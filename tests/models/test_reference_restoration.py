"""The picture-to-picture reference networks: published weights load and do what is published."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader
from edgecv.families.restoration_metric import planes
from edgecv.models.load import load_model
from edgecv.models.reference_restoration import dncnn, imdn_rtc, zero_dce
from edgecv.recipe.load import load_recipe
from edgecv.vision.fidelity import psnr_db

SET5 = "restoration-mini/set5"
# The published Set5 figure of these weights, over all five pictures, is 37.24 dB.
KNOWN_DB = {"baby": 38.71, "bird": 42.24, "butterfly": 33.94}


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image[:, :, ::-1].transpose(2, 0, 1).copy()).float()[None] / 255


def answer(module: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        made = module(tensor(image))[0].clamp(0, 1).numpy()
    return np.rint(made * 255).astype(np.uint8).transpose(1, 2, 0)[:, :, ::-1]


def loaded(module: torch.nn.Module, path: Path) -> torch.nn.Module:
    module.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return module.eval()


def test_sizes() -> None:
    assert sum(item.numel() for item in imdn_rtc().parameters()) == 20_190
    assert imdn_rtc(scale=3)(torch.zeros(1, 3, 8, 10)).shape == (1, 3, 24, 30)
    assert zero_dce()(torch.zeros(2, 3, 8, 10)).shape == (2, 3, 8, 10)
    assert sum(item.numel() for item in dncnn().parameters()) == 12_563
    assert dncnn(width=4, depth=2)(torch.zeros(2, 3, 7, 10)).shape == (2, 3, 7, 10)
    with pytest.raises(ValueError, match="depth is 1; at least 2"):
        dncnn(depth=1)


def test_the_denoiser_takes_the_noise_from_the_picture() -> None:
    """With nothing found as noise the picture is what it was."""
    module = dncnn(width=4, depth=3).eval()
    with torch.no_grad():
        for part in module.parameters():
            part.zero_()
        inputs = torch.rand(1, 3, 8, 8)
        assert torch.equal(module(inputs), inputs)


@pytest.mark.build
def test_the_shipped_denoiser_takes_most_of_the_noise_away(root: Path) -> None:
    """28.8 dB on the first hundred test scenes, whose noise leaves 20.3 dB."""
    loaded_recipe = load_recipe(root / "recipes/restoration/scenes-denoise.yaml")
    recipe = loaded_recipe.recipe
    module = load_model(recipe.model, family=recipe.family, base=loaded_recipe.base, cache=Path(), seed=0).eval()
    reader = open_reader(DataSpec("scenes-noisy", split="test", limit=10), base=root, labels=("picture",))
    samples = [reader[index] for index in range(len(reader))]
    before = [psnr_db(item.image.astype(float), item.truth.astype(float)) for item in samples]
    after = [psnr_db(answer(module, item.image).astype(float), item.truth.astype(float)) for item in samples]
    assert np.mean(before) < 20.6
    assert np.mean(after) > 28.4


@pytest.mark.parametrize("name", ["bird", "butterfly"])
def test_imdn_on_set5(shared_data: Path, name: str) -> None:
    module = loaded(imdn_rtc(), shared_data / "models/imdn_rtc_x2/model_RTC.pth")
    small = cv2.imread(str(shared_data / SET5 / f"LR_bicubic_x2/{name}x2.bmp"))
    large = cv2.imread(str(shared_data / SET5 / f"HR/{name}.bmp"))
    found = psnr_db(*(planes(item, luma=True, border=2) for item in (answer(module, small), large)))
    assert found == pytest.approx(KNOWN_DB[name], abs=0.02)


def test_zero_dce_brings_light(shared_data: Path) -> None:
    module = loaded(zero_dce(), shared_data / "models/zero_dce/Epoch99.pth")
    dark = cv2.imread(str(shared_data / "restoration-mini/lowlight_dicm/07.jpg"))[380:480, :240]
    light = answer(module, dark)
    assert light.mean() > 1.5 * dark.mean()
    shape = [np.corrcoef(dark[:, :, c].ravel(), light[:, :, c].ravel())[0, 1] for c in range(3)]
    assert min(shape) > 0.9
