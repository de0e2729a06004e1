"""What goes into a network at once: a picture, or for one that streams a frame and the state before it.

Where the network streams, calibration clips are gone through frame by frame, so that the ranges of its state are those
that it has on a camera.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgecv.core.protocols import Batches
from edgecv.core.tensor import FloatArray
from edgecv.errors import DataError
from edgecv.models.streaming import StepForm, Unrolled

__all__ = ["ClipSteps", "Example", "all_inputs", "picture_shape", "pictures", "steps_of"]

Example = Tensor | tuple[Tensor, ...]
"""The inputs of a network, batch 1: a picture `(1, C, H, W)`, or such a frame and the tensors of a state."""


@dataclass(frozen=True)
class ClipSteps:
    """``clips``, `Batches` of them, for a network that streams: `pictures` gives the steps that ``network`` takes."""

    clips: Batches
    network: Unrolled

    def __call__(self) -> Iterator[tuple[FloatArray, Any]]:
        return self.clips()

    def steps(self, clip: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The frames of one clip `(1, T * C, H, W)`, each with the state that the float network has by then."""
        with torch.no_grad():
            for inputs, _ in self.network.steps(clip):
                yield inputs


def steps_of(calibration: Batches, module: torch.nn.Module, example: Example) -> Batches:
    """``calibration`` as the float ``module`` takes it, which is one of `edgecv.models.streaming.deploy_form`: frame by
    frame where it streams, else as it is."""
    if not isinstance(module, StepForm):
        return calibration
    return ClipSteps(calibration, Unrolled(module.eval(), all_inputs(example)))


def all_inputs(example: Example) -> tuple[Tensor, ...]:
    """The inputs one by one."""
    return (example,) if isinstance(example, Tensor) else tuple(example)


def picture_shape(example: Example) -> tuple[int, ...]:
    """The shape of the picture, or frame, in it, without the batch axis."""
    return tuple(all_inputs(example)[0].shape[1:])


def pictures(batches: Batches, *, limit: int, shape: tuple[int, ...]) -> Iterator[Example]:
    """The first ``limit`` pictures of a pass, one at a time: `(1, C, H, W)` float32; of `ClipSteps` all steps of the
    first ``limit`` clips.

    Raises:
        DataError: a picture's (or frame's) shape is not ``shape`` (without the batch axis), or there is none.
    """
    count = 0
    for arrays, _ in batches():
        for array in torch.from_numpy(arrays).split(1):
            found = tuple(array.shape[1:])
            if isinstance(batches, ClipSteps) and found[0] % shape[0] == 0:
                found = (shape[0], *found[1:])
            if found != shape:
                raise DataError(
                    f"a calibration picture has shape {found}; the model takes {shape}. "
                    "Both must come from the same input contract."
                )
            count += 1
            if isinstance(batches, ClipSteps):
                yield from batches.steps(array)
            else:
                yield array
            if count == limit:
                return  # before another batch is made for nothing
    if count == 0:
        raise DataError("the calibration set is empty; at least 1 picture is needed")
