"""The step ``fit``: a network of family anomaly looks at good pictures and keeps what it needs to know about them.

Nothing is trained here. A memory bank keeps features of good pictures; a student beside its teacher, and an
auto-encoder, have learned by then (the step ``finetune``, whose loss on good pictures is their map) and need nothing.
Then the network's map is brought to scale: good pictures that were held out tell how high a good one may score, and
that becomes ``family.score_threshold``. The limit so travels inside the network, int8 or not, and one number in the
manifest means the same after every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from edgecv import families
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.recipe import Fit
from edgecv.data.selection import truths_of
from edgecv.errors import DataError, ModelError
from edgecv.families.anomaly import is_good
from edgecv.models.memory_bank import GoodPictures
from edgecv.models.outputs import unwrapped
from edgecv.optimize.batches import make_batches
from edgecv.optimize.finetune import TrainSet
from edgecv.vision.image import preprocess

__all__ = ["FitFigures", "FitsNormal", "fit_normal"]

_BATCH = 16
_ROUNDS = 3
_NEAR = 1e-4


@runtime_checkable
class FitsNormal(Protocol):
    """A network that can be shown what is usual."""

    def fit_normal(self, pictures: GoodPictures, *, seed: int) -> None:
        """Keep what there is to know about good pictures; may go through them several times."""
        ...

    def set_scale(self, scale: float) -> None:
        """Multiply x by so much, instead of by what was set before; the map is x / (1 + x)."""
        ...


@dataclass(frozen=True)
class FitFigures:
    """How many good ``pictures`` were learned from, how many ``held_out`` ones set the ``limit``, and that limit.

    ``limit`` is x at that limit before it was brought to scale, where the map is x / (1 + x).
    """

    pictures: int
    held_out: int
    limit: float


def fit_normal(
    module: nn.Module, *, step: Fit, data: TrainSet, seed: int = 0, progress: Progress | None = None
) -> FitFigures:
    """Show ``module`` (changed in place) good pictures of ``data`` and bring its map to the family's threshold.

    Pictures that show a defect are left out; without any truths all count as good.

    Raises:
        ModelError: the network cannot be fitted, or its map is 0 on pictures that it did not see.
        DataError: fewer than two good pictures.
    """
    network = unwrapped(module)
    if not isinstance(network, FitsNormal):
        raise ModelError(
            f"a {type(network).__name__} has no fit_normal, so the step fit cannot show it good pictures. Take a "
            "network of edgecv.models.reference_anomaly (such as patchcore), or leave fit out and set "
            "family.options.unit to the value that counts as 1"
        )
    threshold = data.family.score_threshold
    if not 0 < threshold < 1:
        raise ModelError(f"family.score_threshold is {threshold}; fit needs one above 0 and below 1, such as 0.5")
    rest, held = _split(data, step, seed)
    module.eval()
    scale = 1.0
    network.set_scale(scale)
    batches = make_batches(data.reader, data.contract, batch_size=_BATCH, indices=rest).fixed()
    network.fit_normal(lambda: (torch.from_numpy(inputs) for inputs, _ in batches()), seed=seed)
    limits = []
    for _ in range(_ROUNDS):  # a score that is a mean of many places is not bounded as each of them is
        scores = _scores(module, data, held, progress or SilentProgress())
        limit = float(np.quantile(scores, step.quantile, method="higher"))
        if not 0 < limit < 1:
            raise ModelError(
                f"the network's map is {limit:g} on {len(held)} good pictures that it had not seen; it must be above 0 "
                "and below 1. Check its weights, and that it ends with x / (1 + x)"
            )
        limits.append(limit / (1 - limit) / scale)
        scale = threshold / (1 - threshold) / limits[-1]
        network.set_scale(scale)
        if abs(limit - threshold) <= _NEAR:
            break
    return FitFigures(len(rest), len(held), limits[0])


def _split(data: TrainSet, step: Fit, seed: int) -> tuple[list[int], list[int]]:
    """Good pictures to learn from, and others that set the limit; both picked at random and sorted."""
    good = [index for index, truth in enumerate(truths_of(data.reader)) if is_good(truth)]
    if len(good) < 2:
        raise DataError(f"{len(good)} pictures of data.train are good ones; fit needs 2 or more")
    picked = np.random.default_rng([seed, 1]).permutation(good)[: step.samples]
    count = min(max(1, round(len(picked) * step.held_out)), len(picked) - 1)
    return sorted(int(index) for index in picked[count:]), sorted(int(index) for index in picked[:count])


def _scores(module: nn.Module, data: TrainSet, indices: list[int], progress: Progress) -> list[float]:
    """The score of each picture, as the device gives it."""
    family, found = families.get(data.family.kind), []
    with progress.task("fit", len(indices)) as task, torch.no_grad():
        for index in indices:
            image = data.reader[index].image
            outputs: Any = module(torch.from_numpy(preprocess(image, data.contract)[None]))
            arrays = [item.numpy() for item in ([outputs] if isinstance(outputs, torch.Tensor) else outputs)]
            size = (image.shape[0], image.shape[1])
            found.append(float(family.decode(arrays, data.family, data.contract, picture=size).score))
            task.advance()
    return found
