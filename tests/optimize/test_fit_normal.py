"""The step fit: good pictures in, a filled memory and a map at the family's threshold out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgecv import families
from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec, FamilySpec, Fit
from edgecv.data.readers import open_reader
from edgecv.errors import DataError, ModelError
from edgecv.models.outputs import TensorOutputs
from edgecv.models.reference_anomaly import patchcore
from edgecv.models.reference_segmentation import unet
from edgecv.optimize.finetune import TrainSet
from edgecv.optimize.fit_normal import fit_normal
from edgecv.vision.image import preprocess

CONTRACT = InputContract(size=(64, 64), resize="stretch")
FAMILY = FamilySpec("anomaly", ("defect",), score_threshold=0.5)


def network() -> Any:
    torch.manual_seed(0)
    return patchcore(levels=2, width=8, layers=["0", "1"], bank=64, patches=4000).eval()


def train_set(split: str = "train", *, limit: int = 24, family: FamilySpec = FAMILY) -> TrainSet:
    spec = DataSpec("textures", split=split, only="metal", limit=limit)  # type: ignore[arg-type]
    return TrainSet(open_reader(spec, base=Path(), labels=()), CONTRACT, family)


def score(module: Any, image: Any) -> float:
    with torch.no_grad():
        values = module(torch.from_numpy(preprocess(image, CONTRACT)[None])).numpy()
    return float(families.get("anomaly").decode([values], FAMILY, CONTRACT).score)


def test_good_pictures_stay_below_the_threshold_and_defects_do_not() -> None:
    module, data = network(), train_set()
    found = fit_normal(module, step=Fit(held_out=0.25, quantile=1.0), data=data, seed=1)
    assert (found.pictures, found.held_out) == (18, 6)
    scores = [score(module, sample.image) for sample in (data.reader[index] for index in range(24))]
    assert min(abs(value - 0.5) for value in scores) < 1e-3, "the highest of those held out is the limit"
    assert np.mean(np.array(scores) > 0.501) < 0.2
    test = train_set("test", limit=20).reader
    spoiled = [score(module, test[index].image) for index in range(20) if test[index].truth.defect]
    assert np.mean(np.array(spoiled) > 0.5) > 0.5


def test_the_same_seed_gives_the_same_network_wrapped_or_not() -> None:
    one, other = network(), TensorOutputs(network()).eval()
    fit_normal(one, step=Fit(samples=12), data=train_set(), seed=3)
    fit_normal(other, step=Fit(samples=12), data=train_set(), seed=3)
    inner = other.model.state_dict()
    assert all(torch.equal(value, inner[name]) for name, value in one.state_dict().items())
    again = fit_normal(one, step=Fit(samples=12), data=train_set(), seed=3)
    assert again.pictures + again.held_out == 12
    assert all(torch.equal(value, inner[name]) for name, value in one.state_dict().items()), "fitting twice is as once"


def test_defects_in_the_training_set_are_left_out() -> None:
    found = fit_normal(network(), step=Fit(), data=train_set("test", limit=20), seed=0)
    assert found.pictures + found.held_out == 10


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(ModelError, match="has no fit_normal"):
        fit_normal(unet(num_classes=1), step=Fit(), data=train_set())
    with pytest.raises(DataError, match=r"1 pictures of data\.train are good"):
        fit_normal(network(), step=Fit(), data=train_set(limit=1))
    blind = FamilySpec("anomaly", ("defect",), score_threshold=0.0)
    with pytest.raises(ModelError, match=r"score_threshold is 0\.0; fit needs one above 0 and below 1"):
        fit_normal(network(), step=Fit(), data=train_set(family=blind))
