"""Semantic segmentation: a class for every pixel.

Heads: ``logits`` (also the default), one plane of scores for each label; ``binary``, one plane that says where the
second of two labels is; ``classmap``, the class indices themselves, as networks give them that end with an argmax.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import ModelError, UsageError
from edgecv.families.graph_heads import output_layers
from edgecv.families.heads.common import Option, flag, is_number, option_problems, setting
from edgecv.families.segmentation_map import NO_CLASS, ClassMap
from edgecv.families.segmentation_metric import METRICS, PixelMetric
from edgecv.vision.image import Geometry, geometry
from edgecv.vision.maps import classes_to_picture, plane_to_picture, planes_to_picture

__all__ = ["HEAD_NAMES", "KIND", "METRICS", "agree", "decode", "loss", "metric", "problems", "protected"]

KIND = "segmentation"
HEAD_NAMES: tuple[str, ...] = ("logits", "binary", "classmap")

SAME_SHARE = 0.95
"""Two maps give the same answer where so much of the picture has the same class."""
_WIDEST_CLASSES = NO_CLASS - 1

_COMMON: Mapping[str, Option] = {
    "void": Option("", lambda value: isinstance(value, str) and value != "", "a label whose true pixels are not judged")
}
_TRAINED: Mapping[str, Option] = {
    **_COMMON,
    "scores": flag(False),
    "dice": Option(0.0, lambda value: is_number(value) and 0 <= value <= 1, "the share of the Dice loss, 0 to 1"),
}
_OPTIONS: Mapping[str, Mapping[str, Option]] = {
    "logits": _TRAINED,
    "binary": {
        **_TRAINED,
        "threshold": Option(0.5, lambda value: is_number(value) and 0 < value < 1, "a number between 0 and 1"),
    },
    "classmap": _COMMON,
}


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why the head, its options or outputs of these shapes do not fit, in words; empty when all do.

    Options: ``void`` names a label that is not judged; ``scores: true`` keeps the score of each pixel's class;
    ``dice`` (0..1) mixes the Dice loss into training; ``threshold`` (head binary, 0.5) is the score from which on
    a pixel is of the second label.
    """
    head = spec.head or "logits"
    if head not in HEAD_NAMES:
        near = difflib.get_close_matches(head, HEAD_NAMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return [f"family.head is {head!r}; allowed for segmentation: {', '.join(HEAD_NAMES)}.{hint}"]
    wrong = _spec_problems(spec, head) + option_problems(_OPTIONS[head], spec)
    if wrong:
        return wrong
    if len(outputs) != 1:
        names = ", ".join(output.name for output in outputs)
        return [f"the model has {len(outputs)} outputs ({names}); segmentation needs exactly one"]
    if _channel_axis(outputs[0].shape, spec, head) is None:
        return [f"the output {outputs[0].name!r} has shape {outputs[0].shape}; {_wanted(spec, head)}"]
    return []


def decode(
    outputs: Sequence[FloatArray],
    spec: FamilySpec,
    contract: InputContract,
    *,
    picture: tuple[int, int] | None = None,
) -> ClassMap:
    """The output of one picture -> the class of every pixel of a picture of (height, width) ``picture``.

    Planes of scores are linearly interpolated to the picture's pixels before the best is taken, class maps are
    taken from the nearest place; padding of a letterbox is cut off. None for a picture of the size of the network
    input.

    Raises:
        ModelError: the output does not fit the head and labels, or holds NaN, infinity or a class without a label.
    """
    head = spec.head or "logits"
    axis = _channel_axis(outputs[0].shape, spec, head) if len(outputs) == 1 and head in HEAD_NAMES else None
    if axis is None:
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise ModelError(f"the model gave outputs of shape {shapes}; {_wanted(spec, head)}")
    shape = picture or contract.size
    place = Geometry(shape, shape, shape, (0, 0)) if picture is None else geometry(picture, contract)
    values = np.asarray(outputs[0], dtype=np.float32)
    planes = np.moveaxis(values, axis, 1)[0] if values.ndim == 4 else values
    if not np.isfinite(planes).all():
        raise ModelError(
            f"{int((~np.isfinite(planes)).sum())} of {planes.size} scores are NaN or infinite: a layer overflows. "
            "Check the picture's normalisation and the weights; fp16 overflows above 65504, keep such layers in fp32."
        )
    if head == "classmap":
        return ClassMap(classes_to_picture(_indices(planes[0], spec), place), spec.labels)
    planes = np.ascontiguousarray(planes)
    scores = None
    if spec.options.get("scores", False):
        scores = plane_to_picture(_chosen_scores(planes, spec, head), place)
    if head == "binary":
        planes = np.stack([np.full_like(planes[0], _limit(spec)), planes[0]])
    return ClassMap(planes_to_picture(planes, place), spec.labels, scores)


def agree(one: ClassMap, other: ClassMap) -> bool:
    """Whether both maps have the same size and the same class on at least 95 % of it."""
    return one.classes.shape == other.classes.shape and float((one.classes == other.classes).mean()) >= SAME_SHARE


def metric(spec: FamilySpec, name: str) -> PixelMetric:
    """Counts pixels; ``name`` is one of `METRICS`, truths are `edgecv.families.segmentation_map.MaskTruth`.

    Raises:
        UsageError: there is no such metric.
    """
    if name not in METRICS:
        raise UsageError(f"segmentation has no metric {name!r}; allowed: {', '.join(METRICS)}")
    return PixelMetric(spec, name)


def protected(module: Any) -> list[str]:
    """Names of the Linear and Conv2d submodules of a torch ``module`` that make the scores.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    return output_layers(module, kind="class scores")


def loss(outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
    """Mean cross entropy of the judged pixels; a scalar tensor.

    ``outputs`` are torch scores `(N, C, h, w)` (`(N, 1, h, w)` of head binary), ``truths`` class maps `(N, H, W)` over
    the network's input, `NO_CLASS` where a pixel is not judged. Scores are interpolated to the pixels of the truth, as
    `decode` does: a truth picked at every second pixel would teach maps that lie half a pixel off. The option
    ``dice`` mixes in 1 - the soft Dice coefficient (F. Milletari et al., V-Net, 2016, arXiv:1606.04797), the mean
    over classes.

    Raises:
        ModelError: the head is classmap, which has no gradient.
    """
    import torch
    import torch.nn.functional as functional

    head = spec.head or "logits"
    if head == "classmap":
        raise ModelError("a network that ends with an argmax cannot be trained; give it its planes of scores")
    scores = (outputs if isinstance(outputs, torch.Tensor) else outputs[0]).float()
    targets = _without_void(truths.long(), spec)
    if scores.shape[2:] != targets.shape[1:]:
        scores = functional.interpolate(scores, size=targets.shape[1:], mode="bilinear", align_corners=False)
    if head == "binary":
        logits = torch.cat([torch.zeros_like(scores), _as_logit(scores) if _is_share(spec) else scores], dim=1)
    else:
        # Cross entropy starts with log-softmax, and softmax(log p) = p for probabilities that add up to 1.
        logits = scores.clamp_min(1e-12).log() if _is_share(spec) else scores
    judged = (targets != NO_CLASS).sum().clamp(min=1)
    total = functional.cross_entropy(
        logits, targets, ignore_index=NO_CLASS, label_smoothing=label_smoothing, reduction="sum"
    )
    value = total / judged
    share = float(spec.options.get("dice", 0.0))
    return value if share == 0 else (1 - share) * value + share * _dice_loss(logits, targets)


def _dice_loss(logits: Any, targets: Any) -> Any:
    """1 - soft Dice coefficient, mean over the classes that occur; `(N, C, h, w)` logits and `(N, h, w)` classes."""
    import torch.nn.functional as functional

    judged = (targets != NO_CLASS)[:, None].float()
    wanted = functional.one_hot(targets.clamp(max=logits.shape[1] - 1), logits.shape[1]).permute(0, 3, 1, 2) * judged
    found = logits.softmax(dim=1) * judged
    common, both = ((found * wanted).sum(dim=(0, 2, 3)), (found + wanted).sum(dim=(0, 2, 3)))
    there = (wanted.sum(dim=(0, 2, 3)) > 0).float()
    coefficient = 2 * common / both.clamp(min=1e-6)
    return ((1 - coefficient) * there).sum() / there.sum().clamp(min=1)


def _without_void(targets: Any, spec: FamilySpec) -> Any:
    void = spec.options.get("void")
    return targets if void is None else targets.masked_fill(targets == spec.labels.index(void), NO_CLASS)


def _as_logit(shares: Any) -> Any:
    return shares.clamp(1e-6, 1 - 1e-6).logit()


def _is_share(spec: FamilySpec) -> bool:
    return spec.outputs == "probabilities"


def _spec_problems(spec: FamilySpec, head: str) -> list[str]:
    found = []
    if spec.background:
        found.append("family.background is true; name the background as a label instead, its pixels are judged too")
    if head == "binary" and len(spec.labels) != 2:
        found.append(
            f"head binary has {len(spec.labels)} labels; exactly 2 are needed, what is below the threshold first"
        )
    if not 2 <= len(spec.labels) <= _WIDEST_CLASSES:
        found.append(f"there are {len(spec.labels)} labels; 2 to {_WIDEST_CLASSES} are allowed")
    void = spec.options.get("void")
    if isinstance(void, str) and void not in spec.labels:
        found.append(f"option 'void' is {void!r}; allowed is one of the labels: {', '.join(spec.labels)}")
    return found


def _channel_axis(shape: tuple[int, ...], spec: FamilySpec, head: str) -> int | None:
    """Where the planes of an output of this shape stand (0 where there is no such axis); None where it does not fit."""
    wanted = len(spec.labels) if head == "logits" else 1
    if len(shape) == 3 and shape[0] == 1 and head != "logits":
        return 0
    if len(shape) != 4 or shape[0] != 1:
        return None
    return next((axis for axis in (1, 3) if shape[axis] == wanted), None)


def _wanted(spec: FamilySpec, head: str) -> str:
    if head == "logits":
        count = len(spec.labels)
        return f"{count} labels need (1, {count}, h, w) or (1, h, w, {count}). Give one label for each plane."
    return f"head {head} needs (1, h, w), (1, 1, h, w) or (1, h, w, 1)"


def _limit(spec: FamilySpec) -> float:
    """The score at which the second label begins, in the units of the output."""
    threshold = float(setting(_OPTIONS["binary"], spec, "threshold"))
    return threshold if _is_share(spec) else math.log(threshold / (1 - threshold))


def _indices(values: FloatArray, spec: FamilySpec) -> Any:
    classes = np.rint(values)
    wrong = classes[(classes < 0) | (classes >= len(spec.labels))]
    if wrong.size:
        raise ModelError(
            f"the model gave class {int(wrong[0])}; allowed are 0..{len(spec.labels) - 1}, one per label. "
            "Give all labels that it knows, in its order."
        )
    return classes.astype(np.uint8)


def _chosen_scores(planes: FloatArray, spec: FamilySpec, head: str) -> FloatArray:
    """Probability of the class that is chosen at each place `(h, w)`, from planes `(C, h, w)`."""
    if head == "binary":
        second = planes[0] if _is_share(spec) else 1 / (1 + np.exp(-planes[0].clip(-80, 80)))
        chosen: FloatArray = np.where(planes[0] > _limit(spec), second, 1 - second).astype(np.float32)
        return chosen
    best = planes.max(axis=0)
    share: FloatArray = best if _is_share(spec) else 1 / np.exp(planes - best).sum(axis=0)
    return share
