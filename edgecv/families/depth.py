"""Monocular depth: a distance for every pixel.

Heads: ``metric`` (also the default), metres; ``log``, their natural logarithm; ``inverse``, 1 / metres; ``relative``,
inverse depth up to an unknown scale and shift, as MiDaS and DPT give it, which the metric aligns to the truth first.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.figures import AccuracyFigures
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families.depth_map import LIMIT, UNKNOWN, DepthMap, DepthTruth, ratio
from edgecv.families.graph_heads import output_layers
from edgecv.families.heads.common import Option, is_number, option_problems, setting
from edgecv.vision.image import Geometry, geometry
from edgecv.vision.maps import plane_to_picture

KIND = "depth"
HEAD_NAMES: tuple[str, ...] = ("metric", "log", "inverse", "relative")
METRICS: tuple[str, ...] = ("delta1", "abs_rel", "rmse_m")

_FEWEST_PIXELS = 10
_SAME_SHARE = 0.95
_FLAT = 1e-6
_OPTIONS: Mapping[str, Option] = {
    "min_m": Option(1e-3, lambda value: is_number(value) and value > 0, "metres above 0: nearer results count as this"),
    "max_m": Option(
        1000.0, lambda value: is_number(value) and value > 0, "metres above 0: farther truths are not judged"
    ),
}


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why the head, its options or outputs of these shapes do not fit, in words; empty when all do.

    Options: ``min_m`` (0.001) and ``max_m`` (1000): results are cut to this span, true distances beyond are not judged.
    """
    head = spec.head or HEAD_NAMES[0]
    if head not in HEAD_NAMES:
        near = difflib.get_close_matches(head, HEAD_NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return [f"family.head is {head!r}; allowed for depth: {', '.join(HEAD_NAMES)}.{hint}"]
    wrong = option_problems(_OPTIONS, spec)
    if wrong:
        return wrong
    if _span(spec)[0] >= _span(spec)[1]:
        low, high = _span(spec)
        return [f"option min_m is {low:g} and max_m {high:g}; min_m must be the smaller one"]
    if len(outputs) != 1 or _plane_shape(outputs[0].shape) is None:
        shapes = [output.shape for output in outputs]
        return [f"the outputs have shapes {shapes}; depth is one output (1, 1, h, w), (1, h, w, 1) or (1, h, w)"]
    return []


def decode(
    outputs: Sequence[FloatArray],
    spec: FamilySpec,
    contract: InputContract,
    *,
    picture: tuple[int, int] | None = None,
) -> DepthMap:
    """The output of one picture -> the distance of every pixel of a picture of (height, width) ``picture``.

    Values are linearly interpolated to the picture's pixels; padding of a letterbox is cut off. None for a picture of
    the size of the network input.

    Raises:
        ModelError: the output has another shape or holds NaN or infinity.
    """
    shape = _plane_shape(outputs[0].shape) if len(outputs) == 1 else None
    if shape is None:
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise ModelError(f"the model gave outputs of shape {shapes}; depth is one output (1, 1, h, w) or (1, h, w)")
    plane = np.asarray(outputs[0], dtype=np.float32).reshape(shape)
    if not np.isfinite(plane).all():
        raise ModelError(
            f"{int((~np.isfinite(plane)).sum())} of {plane.size} distances are NaN or infinite: a layer overflows. "
            "Check the picture's normalisation and the weights; keep such layers in fp32."
        )
    size = picture or contract.size
    place = Geometry(size, size, size, (0, 0)) if picture is None else geometry(picture, contract)
    if spec.head == "relative":
        return DepthMap(plane_to_picture(plane, place), metric=False)
    low, high = _span(spec)
    # Interpolated as the network gives it, and cut to the span where a picture's pixels were seen.
    values = plane_to_picture(plane, place)
    seen = plane_to_picture(np.ones_like(plane), place) > 0
    if spec.head == "log":
        values = np.exp(np.clip(values, np.log(low), np.log(high)))
    elif spec.head == "inverse":
        values = 1.0 / np.clip(values, 1.0 / high, 1.0 / low)
    return DepthMap(np.where(seen, np.clip(values, low, high), UNKNOWN).astype(np.float32))


def agree(one: DepthMap, other: DepthMap) -> bool:
    """Whether 95 % of both maps are alike (`DepthMap.likeness`)."""
    return one.likeness(other) >= _SAME_SHARE


def metric(spec: FamilySpec, name: str) -> "DepthMetric":
    """How well distances are found; ``name`` is ``delta1``, ``abs_rel`` or ``rmse_m``.

    Raises:
        UsageError: there is no such metric.
    """
    if name not in METRICS:
        raise UsageError(f"depth has no metric {name!r}; allowed: {', '.join(METRICS)}")
    return DepthMetric(spec, name)


class DepthMetric:
    """The usual figures of depth, each computed over a picture's judged pixels, then averaged over the pictures.

    ``delta1``: share of pixels whose distance is within a factor of 1.25 of the truth; ``abs_rel``: the mean of
    |found - true| / true; ``rmse_m``: the root of the mean squared error in metres (D. Eigen et al., "Depth Map
    Prediction from a Single Image", 2014, arXiv:1406.2283). The one of them by its name, the others beside it. Relative
    results are first aligned by the scale and shift that fit the true inverse depth best in the least squares sense
    (R. Ranftl et al., MiDaS, arXiv:1907.01341).
    """

    def __init__(self, spec: FamilySpec, name: str = METRICS[0]) -> None:
        self._spec, self._name = spec, name
        self._found: dict[str, list[float]] = {known: [] for known in METRICS}

    def update(self, result: DepthMap, truth: DepthTruth) -> None:
        """Add one picture.

        Raises:
            DataError: the truth is no depth map, has another size, or hardly a pixel of it is judged.
        """
        if not isinstance(truth, DepthTruth):
            raise DataError(f"depth is judged by depth maps, not by {truth!r}; use data of kind depth or scenes-depth")
        if truth.metres.shape != result.values.shape:
            raise DataError(f"the truth has shape {truth.metres.shape}, the result {result.values.shape}")
        low, high = _span(self._spec)
        judged = (truth.metres > UNKNOWN) & (truth.metres <= high)
        if result.metric:
            judged &= result.values > UNKNOWN
        if int(judged.sum()) < _FEWEST_PIXELS:
            raise DataError(
                f"{int(judged.sum())} pixels of a depth map are judged; {_FEWEST_PIXELS} are needed. Check its unit "
                f"(data.eval.depth_unit) and option max_m, which is {high:g}"
            )
        true = truth.metres[judged].astype(np.float64)
        found = result.values[judged].astype(np.float64)
        if not result.metric:
            found = _aligned(found, true, low, high)
        self._found["delta1"].append(float((ratio(found, true) < LIMIT).mean()))
        self._found["abs_rel"].append(float((np.abs(found - true) / true).mean()))
        self._found["rmse_m"].append(float(np.sqrt(((found - true) ** 2).mean())))

    def compute(self) -> AccuracyFigures:
        """The metric, with the others beside it; ``per_sample`` is each picture's value of it.

        Raises:
            DataError: there was no picture.
        """
        mine = self._found[self._name]
        if not mine:
            raise DataError("no picture was judged; give at least one")
        extras = {name: float(np.mean(values)) for name, values in self._found.items() if name != self._name}
        return AccuracyFigures(self._name, float(np.mean(mine)), len(mine), extras=extras, per_sample=tuple(mine))


def loss(outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
    """The scale-invariant error of log depth (D. Eigen et al., arXiv:1406.2283, with lambda 0.5); a scalar tensor.

    ``outputs`` are torch values `(N, 1, h, w)` or `(N, h, w)` of the head; ``truths`` metres `(N, H, W)` over the
    network's input, 0 where they are not known; outputs of another size are linearly interpolated to that. Head
    ``relative`` is held against the inverse depth after alignment of each picture (mean absolute error).
    ``label_smoothing`` means nothing here.
    """
    import torch
    import torch.nn.functional as functional

    values = (outputs if isinstance(outputs, torch.Tensor) else outputs[0]).float()
    planes = values if values.ndim == 3 else values.flatten(0, 1) if values.shape[1] == 1 else values[..., 0]
    true = truths.float()
    if planes.shape != true.shape:  # as decoding does: the other way would teach maps that lie a part of a pixel off
        planes = functional.interpolate(planes[:, None], size=true.shape[1:], mode="bilinear")[:, 0]
    low, high = _span(spec)
    judged = (true > UNKNOWN) & (true <= high)
    count = judged.sum(dim=(1, 2)).clamp(min=1)
    if spec.head == "relative":
        wanted = torch.where(judged, 1 / true.clamp(min=low), torch.zeros_like(true))
        return _aligned_error(planes, wanted, judged, count)
    if spec.head == "log":
        logs = planes
    else:
        inverse = spec.head == "inverse"
        wanted = 1 / true.clamp(min=low) if inverse else true.clamp(min=low)
        # Far below every truth a logarithm is too steep to learn from, and below 0 there is none: a line goes on.
        floor = 0.1 * float(wanted[judged].min()) if bool(judged.any()) else 1.0
        logs = torch.where(planes > floor, planes.clamp(min=floor).log(), planes / floor - 1 + math.log(floor))
        logs = -logs if inverse else logs
    gap = torch.where(judged, logs - true.clamp(min=low).log(), torch.zeros_like(true))
    mean_square = (gap**2).sum(dim=(1, 2)) / count
    mean = gap.sum(dim=(1, 2)) / count
    return (mean_square - 0.5 * mean**2).clamp(min=0).mean()


def protected(module: Any) -> list[str]:
    """Names of the Linear and Conv2d submodules of a torch ``module`` that make the distances.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    return output_layers(module, kind="distances")


def _span(spec: FamilySpec) -> tuple[float, float]:
    return float(setting(_OPTIONS, spec, "min_m")), float(setting(_OPTIONS, spec, "max_m"))


def _plane_shape(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(h, w) of `(1, 1, h, w)`, `(1, h, w, 1)` or `(1, h, w)`; None for anything else."""
    if len(shape) == 3 and shape[0] == 1:
        return shape[1], shape[2]
    if len(shape) == 4 and shape[0] == 1 and 1 in (shape[1], shape[3]):
        return (shape[2], shape[3]) if shape[1] == 1 else (shape[1], shape[2])
    return None


def _aligned(found: Any, true: Any, low: float, high: float) -> Any:
    """Metres from relative inverse depth: the scale and shift that fit 1 / ``true`` best, then its inverse."""
    wanted = 1.0 / true
    spread = found - found.mean()
    power = float((spread**2).mean())
    scale = float((spread * (wanted - wanted.mean())).mean()) / power if power > _FLAT**2 else 0.0
    return 1.0 / np.clip(wanted.mean() + scale * spread, 1.0 / high, 1.0 / low)


def _aligned_error(planes: Any, wanted: Any, judged: Any, count: Any) -> Any:
    """Mean absolute error after each picture's best scale and shift, in units of the true values' mean spread."""
    import torch

    inside = judged.float()
    sizes = count[:, None, None]

    def centred(values: Any) -> Any:
        return (values - (values * inside).sum(dim=(1, 2), keepdim=True) / sizes) * inside

    found, true = centred(planes), centred(wanted)
    power = (found**2).sum(dim=(1, 2), keepdim=True).clamp(min=1e-9)
    scale = (found * true).sum(dim=(1, 2), keepdim=True) / power
    spread = (true.abs().sum(dim=(1, 2)) / count).clamp(min=1e-9)
    return (((scale * found - true).abs().sum(dim=(1, 2)) / count) / spread).mean() + torch.relu(-scale).mean()
