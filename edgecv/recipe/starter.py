"""The recipe that `edgecv init` writes: complete, and each choice explained where it stands."""

from __future__ import annotations

import importlib
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgecv.core.kinds import FAMILY_KINDS
from edgecv.errors import Problem, RecipeError
from edgecv.recipe.starter_families import data_section, family_section, judged_families, onnx_outputs
from edgecv.recipe.typed import did_you_mean
from edgecv.recipe.yaml_lines import plain_value

SOURCES = ("torchvision", "timm", "transformers", "python", "onnx")
_ATTENTION = ("vit", "swin", "deit", "beit", "convnext", "maxvit", "eva", "segformer", "dinov2")


@dataclass(frozen=True)
class _Input:
    """What is known of a model's input; ``why`` says from where."""

    size: tuple[int, int] = (224, 224)
    gray: bool = False
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    resize: str = "crop"
    crop_ratio: float = 0.875
    interpolation: str = "linear"
    imagenet: bool = False
    why: str = "the usual ImageNet values: check them against how your model was trained"


def starter_recipe(
    source: str,
    *,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    data: str = "data",
    targets: Sequence[str] = ("host-onnxruntime", "host-openvino"),
    base: Path = Path(),
    family: str = "classification",
) -> str:
    """A commented recipe for a model of ``family``, as YAML that `load_recipe` takes once the data are in place.

    ``source`` is torchvision:NAME, timm:NAME, transformers:NAME, python:module:function or onnx:FILE
    (relative to ``base``, the folder that the recipe will be written into). ``size`` (height, width)
    and ``name`` override what is known of the model; ``data`` is the folder with ``train`` and ``val``.
    Input size, mean and std of torchvision and timm models are those of their published weights.

    Raises:
        RecipeError: the source is not one of these, or names no model of torchvision or timm; or nothing reads data
            that the family could be judged by.
    """
    if family not in judged_families():
        message = f"is {family!r}{did_you_mean(family, judged_families())}; allowed: {', '.join(judged_families())}"
        raise RecipeError([Problem("--family", None, "", message)])
    kind, _, model = source.partition(":")
    if kind not in SOURCES or not model:
        message = f"is {source!r}; allowed: " + ", ".join(f"{item}:NAME" for item in SOURCES)
        raise RecipeError([Problem("--model", None, "", message)])
    known = _known_input(kind, model, base)
    if size is not None:
        known = replace(known, size=size)
    shapes = onnx_outputs(base / model) if kind == "onnx" else []
    plain = family == "classification"
    if not plain:
        known = replace(known, resize="letterbox" if family == "detection" else "stretch", imagenet=False)
    title = name or _slug(Path(model).stem if kind == "onnx" else re.split(r"[:/]", model)[-1])
    parts = [
        "# A recipe of edgecv: what to do with a model, and for which boards. Run it with: edgecv optimize THIS_FILE",
        "# Paths are relative to this file; ${NAME}/... takes the folder from the environment.",
        "recipe: 1",
        f"name: {_text(title)}",
        _model_section(source, title, known, clips=FAMILY_KINDS[family].clips),  # type: ignore[index]
        _family_section(known) if plain else family_section(family, shapes),
        _data_section(data) if plain else data_section(family, data),
        _steps_section(model, trains=plain and kind != "onnx"),
        _targets_section(targets, FAMILY_KINDS[family].metrics[0]),  # type: ignore[index]
    ]
    return "\n".join(parts) + "\n"


def _model_section(source: str, title: str, known: _Input, *, clips: bool) -> str:
    kind, _, model = source.partition(":")
    lines = ["", "model:", f"  source: {_text(source)}"]
    if kind in ("torchvision", "timm"):
        make = (
            f'torchvision.models.get_model("{model}", weights="DEFAULT")'
            if kind == "torchvision"
            else f'timm.create_model("{model}", pretrained=True)'
        )
        lines += [
            "  # A .safetensors file or a state dict. For the published weights, in Python, once and online:",
            f"  #   import safetensors.torch, {kind}",
            f'  #   safetensors.torch.save_file({make}.state_dict(), "{title}.safetensors")',
            f"  weights: {_text(title + '.safetensors')}",
        ]
    elif kind != "onnx":
        lines += [
            "  # null means random weights, which is good for measuring speed only. Otherwise the path of a",
            "  # .safetensors file or a state dict; an address needs its hash: {url: https://..., sha256: ...}",
            "  weights: null",
        ]
    clip = ["    clip: {frames: 8, fps: 8}   # EDIT: frames that the network sees, and how many in a second"]
    crop = f"\n    crop_ratio: {known.crop_ratio:g}" if known.resize == "crop" else ""
    lines += [
        "  # How a picture becomes the network's input; the same on every board, in training and in evaluation.",
        f"  # These are {known.why}.",
        "  input:",
        f"    size: [{known.size[0]}, {known.size[1]}]   # height, width",
        f"    color: {'gray' if known.gray else 'rgb'}",
        f"    mean: {list(known.mean)}",
        f"    std: {list(known.std)}",
        f"    resize: {known.resize}   # or stretch, letterbox, letterbox-topleft" + crop,
        f"    interpolation: {known.interpolation}",
        *(clip if clips else []),
    ]
    return "\n".join(lines)


def _family_section(known: _Input) -> str:
    if known.imagenet:
        return "\nfamily:\n  kind: classification\n  labels: imagenet-1k   # or a list, or a text file: one name a line"
    return (
        "\nfamily:\n  kind: classification\n  labels: labels.txt   # one class name a line, in output order; or a list"
    )


def _data_section(data: str) -> str:
    train, val = _text(f"{data}/train"), _text(f"{data}/val")
    return f"""
data:
  # A folder with one folder of pictures a class. Every compiled file is proven on all of eval.
  eval: {{kind: imagefolder, path: {val}}}
  # Needed by finetune, qat and taylor pruning; here it also gives the pictures that set the int8 scales.
  train: {{kind: imagefolder, path: {train}}}
  calibration:
    source: {{kind: imagefolder, path: {train}}}
    samples: 256
    select: stratified"""


def _steps_section(model: str, *, trains: bool) -> str:
    attention = any(word in model.lower() for word in _ATTENTION)
    smooth = ", smooth_quant: true" if attention else ""
    why = "\n  # smooth_quant: attention has activations with outliers that int8 would cut off." if attention else ""
    training = "" if not trains else (
        "\n  # For more speed, uncomment: cut channels, train again, and let quantisation take part in training."
        "\n  # - prune: {importance: taylor, speedup: 1.5}"
        "\n  # - finetune: {epochs: 10, lr: 1.0e-4, distill: 0.5}"
        "\n  # - quantize: {method: qat, scheme: portable, epochs: 3}   # in place of the step below"
    )  # fmt: skip
    return f"""
steps:{training}
  # int8 after training. scheme portable runs with the same numbers on every board.{why}
  - quantize: {{method: ptq, scheme: portable{smooth}}}"""


def _targets_section(targets: Sequence[str], metric: str) -> str:
    return f"""
# `edgecv list` shows the boards that edgecv knows; a file of your own works too.
targets: [{", ".join(_text(target) for target in targets)}]
# Above these the run ends with exit code 3.
budgets:
  accuracy: {{metric: {metric}, max_drop: 0.01}}   # against the original float model: 0.01 is one point
  # latency: {{p95_ms: 20}}
  # size_mb: 5"""


def _known_input(kind: str, model: str, base: Path) -> _Input:
    if kind == "torchvision":
        return _torchvision_input(model)
    if kind == "timm":
        return _timm_input(model)
    if kind == "onnx":
        return _onnx_input(base / model)
    return _Input()


def _torchvision_input(model: str) -> _Input:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torchvision import models
    except ImportError:
        return _Input(imagenet=True)
    names = models.list_models(module=models)
    if model not in names:
        raise _unknown("torchvision", model, names)
    preset = next(iter(models.get_model_weights(model))).transforms()
    crop, resize = int(preset.crop_size[0]), int(preset.resize_size[0])
    return _Input(
        size=(crop, crop),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        crop_ratio=round(crop / resize, 4),
        interpolation="cubic" if "bicubic" in str(preset.interpolation).lower() else "linear",
        imagenet=True,
        why="the values that torchvision publishes for these weights",
    )


def _timm_input(model: str) -> _Input:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import timm
            from timm.models import get_pretrained_cfg
    except ImportError:
        return _Input(imagenet=True)
    names = timm.list_models()
    if model.split(".")[0] not in names:
        raise _unknown("timm", model, names)
    found: Any = get_pretrained_cfg(model)
    if found is None:
        return _Input()
    return _Input(
        size=(int(found.input_size[1]), int(found.input_size[2])),
        mean=tuple(found.mean),
        std=tuple(found.std),
        crop_ratio=min(1.0, float(found.crop_pct)),
        interpolation="cubic" if found.interpolation == "bicubic" else "linear",
        imagenet=found.num_classes == 1000,
        why="the values that timm publishes for these weights",
    )


def _onnx_input(path: Path) -> _Input:
    """Size and colour from the file's first input where it is a static image; the usual values otherwise."""
    plain = _Input(mean=(0.0,) * 3, std=(1.0,) * 3, resize="stretch", why="plain values: an ONNX file does not tell")
    try:
        import onnx

        decode_error = importlib.import_module("google.protobuf.message").DecodeError
    except ImportError:
        return plain
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except (OSError, decode_error, ValueError):
        return plain
    weights = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in weights]
    shape = [int(item.dim_value) for item in inputs[0].type.tensor_type.shape.dim] if inputs else []
    if len(shape) != 4 or min(shape[1:]) < 1:
        return plain
    channels_last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    channels, height, width = (shape[3], shape[1], shape[2]) if channels_last else tuple(shape[1:])
    gray = channels == 1
    known = replace(plain, size=(height, width), gray=gray, why="size from the file; mean and std it does not tell")
    return replace(known, mean=(0.0,), std=(1.0,)) if gray else known


def _unknown(kind: str, model: str, names: Sequence[str]) -> RecipeError:
    hint = did_you_mean(model, names)
    message = f"{kind} has no model {model!r}{hint}; it has {len(names)} models"
    return RecipeError([Problem("--model", None, "", message)])


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).lstrip("._-")
    return slug[:64] or "model"


def _text(value: str) -> str:
    """Text as YAML: plain where that is safe, quoted otherwise."""
    safe = re.fullmatch(r"[A-Za-z0-9_$./][A-Za-z0-9_$./:+-]*[A-Za-z0-9_/]|[A-Za-z0-9]", value)
    return value if safe and plain_value(value) == (value, None) else json.dumps(value)
