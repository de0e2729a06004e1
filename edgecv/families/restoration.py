"""Restoration: a picture from a picture (larger, brighter, without noise), pixel by pixel the same scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import ModelError, UsageError
from edgecv.families.graph_heads import output_layers
from edgecv.families.heads.common import Option, flag, is_count, is_list, is_number, option_problems, setting
from edgecv.families.restoration_metric import METRICS, Fidelity, planes
from edgecv.families.restoration_result import Restored
from edgecv.vision.fidelity import psnr_db
from edgecv.vision.image import FILTERS, Image, geometry
from edgecv.vision.tiles import Tiling

__all__ = ["HEAD_NAMES", "KIND", "METRICS", "agree", "decode", "loss", "metric", "problems", "protected", "tiling"]

KIND = "restoration"
HEAD_NAMES: tuple[str, ...] = ()
SAME_DB = 30.0
"""Two pictures that are at least so near (PSNR over all channels) give the same answer."""

_CHARBONNIER = 1e-3

OPTIONS: Mapping[str, Option] = {
    "scale": Option(1, is_count, "a whole number of at least 1"),
    "tiles": flag(True),
    "overlap": Option(None, lambda value: value is None or value == 0 or is_count(value), "0 or more pixels"),
    "color": Option("rgb", lambda value: value in ("rgb", "bgr"), "rgb or bgr"),
    "range": Option((0.0, 1.0), lambda value: is_list(value, is_number, length=2), "two numbers, such as [0, 1]"),
    "luma": Option(None, lambda value: value is None or isinstance(value, bool), "true or false"),
    "border": Option(None, lambda value: value is None or value == 0 or is_count(value), "0 or more pixels"),
    "loss": Option("l1", lambda value: value in ("l1", "charbonnier"), "l1 or charbonnier"),
}
"""``scale``: what the model enlarges by. ``tiles``: pictures are cut into tiles of the network's size that share
``overlap`` pixels (default: 16, or a quarter of a small tile) instead of being resized to it. ``color`` and ``range``:
the channel order of the output, and what black and white are in it. ``luma`` and ``border``: how the metric compares
(default: Y alone and ``scale`` pixels left out where the model enlarges; else all channels and all pixels)."""


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why the options or outputs of this shape are no picture, in words; empty when they are.

    Allowed is one output `(1, C, h, w)` or `(1, h, w, C)` with 3 channels, or 1 for gray.
    """
    if spec.head:
        return ["family restoration has one layout of outputs only; take head away"]
    found = option_problems(OPTIONS, spec)
    if found:
        return found
    if len(outputs) != 1 or _channel_axis(outputs[0].shape) is None:
        shapes = [output.shape for output in outputs]
        return [f"the outputs have shapes {shapes}; a picture is one output (1, C, h, w) or (1, h, w, C) with C 3 or 1"]
    low, high = setting(OPTIONS, spec, "range")
    return ["family.options.range has twice the same number; black and white must differ"] if low == high else []


def tiling(spec: FamilySpec, contract: InputContract) -> Tiling | None:
    """How pictures are cut for a network of the contract's size; None where they are resized to it."""
    if not setting(OPTIONS, spec, "tiles"):
        return None
    overlap = setting(OPTIONS, spec, "overlap")
    usual = min(16, min(contract.size) // 4)
    return Tiling(contract.size, usual if overlap is None else overlap, setting(OPTIONS, spec, "scale"))


def decode(
    outputs: Sequence[FloatArray],
    spec: FamilySpec,
    contract: InputContract,
    *,
    picture: tuple[int, int] | None = None,
) -> Restored:
    """The output as a picture, ``scale`` times as large as one of (height, width) ``picture``.

    ``outputs[0]`` is float32, channels first or last: the joined answer for the whole picture, or the answer for a
    picture that was resized to the network's size, which is resized back.

    Raises:
        ModelError: the output has another shape, or holds NaN or infinity.
    """
    axis = _channel_axis(outputs[0].shape) if len(outputs) == 1 else None
    if axis is None:
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise ModelError(f"the model gave outputs of shape {shapes}; a picture is one (1, C, h, w) with C 3 or 1")
    values = outputs[0][0].transpose(1, 2, 0) if axis == 1 else outputs[0][0]
    if not np.isfinite(values).all():
        raise ModelError(
            f"{int((~np.isfinite(values)).sum())} values of the picture are NaN or infinite: a layer overflows. Check "
            "the weights; fp16 overflows above 65504, keep such layers in fp32."
        )
    scale = setting(OPTIONS, spec, "scale")
    image = _as_picture(values, spec)
    wanted = tuple(scale * length for length in (picture or contract.size))
    if image.shape[:2] != wanted:
        image = _resized_back(image, picture or contract.size, contract, scale)
    return Restored(image, scale)


def agree(one: Restored, other: Restored) -> bool:
    """Whether the PSNR of the two pictures is at least 30 dB."""
    if one.picture.shape != other.picture.shape:
        return False
    return psnr_db(one.picture.astype(np.float64), other.picture.astype(np.float64)) >= SAME_DB


def metric(spec: FamilySpec, name: str) -> Fidelity:
    """Nearness to reference pictures: ``psnr`` (dB) or ``ssim``.

    Raises:
        UsageError: there is no such metric.
    """
    if name not in METRICS:
        raise UsageError(f"restoration has no metric {name!r}; allowed: {', '.join(METRICS)}")
    scale, luma, border = (setting(OPTIONS, spec, key) for key in ("scale", "luma", "border"))
    enlarges = scale > 1
    return Fidelity(
        name,
        luma=enlarges if luma is None else luma,
        border=(scale if enlarges else 0) if border is None else border,
    )


def loss(outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
    """Mean absolute error of torch ``outputs`` `(N, C, h, w)` against reference pictures; a scalar tensor.

    ``truths`` are N pictures uint8 `(h, w, 3)` BGR. With the option ``loss: charbonnier`` the square root of error^2
    + 10^-6, which is smooth at 0 (Lai et al., Deep Laplacian Pyramid Networks, arXiv:1704.03915). Errors are in
    shares of the range from black to white. ``label_smoothing`` has no meaning here.

    Raises:
        ModelError: a reference has another size than the output.
    """
    import torch

    made = outputs if isinstance(outputs, torch.Tensor) else next(iter(outputs))
    low, high = setting(OPTIONS, spec, "range")
    targets = torch.from_numpy(np.stack([_target(truth, made.shape, spec) for truth in truths])).to(made.device)
    errors = (made.float() - low) / (high - low) - targets
    if setting(OPTIONS, spec, "loss") == "charbonnier":
        return (errors.square() + _CHARBONNIER**2).sqrt().mean()
    return errors.abs().mean()


def protected(module: Any) -> list[str]:
    """Names of the layers of a torch ``module`` that make the picture.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    return output_layers(module, kind="picture")


def _channel_axis(shape: Sequence[int]) -> int | None:
    """1 for `(1, C, h, w)`, 3 for `(1, h, w, C)` with 1 or 3 channels; None for anything else."""
    if len(shape) != 4 or shape[0] != 1:
        return None
    return 1 if shape[1] in (1, 3) else 3 if shape[3] in (1, 3) else None


def _as_picture(values: FloatArray, spec: FamilySpec) -> Image:
    """float32 `(h, w, C)` -> uint8 `(h, w, 3)` BGR; values beyond black and white are cut."""
    low, high = setting(OPTIONS, spec, "range")
    factor = np.float32(255.0 / (high - low))
    pixels = np.rint(np.clip((values - np.float32(low)) * factor, 0.0, 255.0)).astype(np.uint8)
    if pixels.shape[2] == 1:
        return np.ascontiguousarray(np.repeat(pixels, 3, axis=2))
    return np.ascontiguousarray(pixels[:, :, ::-1] if setting(OPTIONS, spec, "color") == "rgb" else pixels)


def _resized_back(image: Image, picture: tuple[int, int], contract: InputContract, scale: int) -> Image:
    """The answer for a picture that was resized (and padded) to the network's size, as large as it should be."""
    size = tuple(scale * length for length in contract.size)
    if image.shape[:2] != size or contract.resize == "crop":
        raise ModelError(
            f"the model made a picture of {image.shape[:2]} from an input of {contract.size}; with scale {scale} and "
            f"resize {contract.resize} this does not cover a picture of {picture}. Set family.options.scale to what "
            "the model enlarges by, and leave tiles on or resize at stretch or letterbox."
        )
    place = geometry(picture, contract)
    top, left = (scale * offset for offset in place.offset)
    part = image[top : top + scale * place.resized[0], left : left + scale * place.resized[1]]
    height, width = (scale * length for length in picture)
    back: Image = cv2.resize(part, (width, height), interpolation=FILTERS["linear"])
    return back


def _target(truth: Any, shape: Sequence[int], spec: FamilySpec) -> FloatArray:
    """A reference picture as shares 0..1, `(C, h, w)`, in the channel order of the output."""
    picture = np.asarray(truth)
    if picture.dtype != np.uint8 or picture.shape != (*shape[2:], 3):
        raise ModelError(
            f"a reference is {picture.dtype} {picture.shape} and the output {tuple(shape)}; the network must enlarge "
            "by family.options.scale, and every reference must be so much larger than its input"
        )
    if shape[1] == 1:
        shares: FloatArray = planes(picture, luma=False, border=0).mean(axis=2, dtype=np.float32)[None] / 255
        return shares
    ordered = picture[:, :, ::-1] if setting(OPTIONS, spec, "color") == "rgb" else picture
    return np.ascontiguousarray(ordered.transpose(2, 0, 1), dtype=np.float32) / np.float32(255)
