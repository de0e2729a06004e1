"""The recipe: what is to be done, as frozen dataclasses without any parsing.

`edgecv.recipe.load` validates YAML against these classes (bounds and descriptions stand in the
fields' metadata, which pydantic reads) and generates the JSON schema from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Union

from edgecv.core.contract import FORBID_UNKNOWN, InputContract

__all__ = [
    "Budgets",
    "AccuracyBudget",
    "CalibrationSpec",
    "Data",
    "DataSpec",
    "Distill",
    "FAMILY_METRICS",
    "FamilySpec",
    "Finetune",
    "LatencyBudget",
    "ModelSpec",
    "Prune",
    "Quantize",
    "Recipe",
    "Step",
    "Weights",
]


@dataclass(frozen=True)
class Weights:
    """Where trained weights come from; exactly one of ``path`` and ``url``.

    A file is a ``.safetensors`` file or a PyTorch state dict, which is only ever loaded with
    ``weights_only``. A URL needs ``sha256``.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    path: str | None = field(default=None, metadata={"description": "file, relative to the recipe"})
    url: str | None = field(default=None, metadata={"description": "http(s) address; needs sha256"})
    sha256: str | None = field(default=None, metadata={"pattern": "^[0-9a-f]{64}$", "description": "hash of the file"})
    key: str | None = field(default=None, metadata={"description": "entry of the file that holds the state dict"})
    strip_prefix: str = field(default="", metadata={"description": "prefix cut from every key, such as 'module.'"})
    strict: bool = field(default=True, metadata={"description": "refuse missing and unexpected keys"})


@dataclass(frozen=True)
class ModelSpec:
    """Which network, with which weights, on which input."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    source: str = field(
        metadata={
            "pattern": r"^(torchvision|timm|transformers|python|onnx):.+$",
            "description": "torchvision:NAME, timm:NAME, transformers:NAME, python:module:function or onnx:FILE",
        }
    )
    input: InputContract = field(metadata={"description": "how a picture becomes the network's input"})
    weights: Weights | None = field(default=None, metadata={"description": "trained weights, or null for random"})
    options: dict[str, Any] = field(
        default_factory=dict, metadata={"description": "keyword arguments for the model's constructor"}
    )


@dataclass(frozen=True)
class FamilySpec:
    """What the outputs mean. ``background`` says that output 0 is "none of the labels".

    ``head`` names the layout of the outputs where a family has several (detection: yolo, ssd, ...);
    ``options`` are that head's own settings, which the family checks.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    kind: Literal["classification", "detection", "pose", "embedding"] = field(metadata={"description": "model family"})
    labels: tuple[str, ...] = field(metadata={"min_length": 1, "description": "class names, in output order"})
    background: bool = field(default=False, metadata={"description": "output 0 is a background class without a label"})
    top_k: int = field(default=5, metadata={"ge": 1, "description": "how many classes a result keeps"})
    outputs: Literal["logits", "probabilities"] = field(
        default="logits", metadata={"description": "whether softmax is still to be done"}
    )
    head: str = field(default="", metadata={"description": "layout of the outputs: `edgecv list families` names them"})
    score_threshold: float = field(
        default=0.25, metadata={"ge": 0, "le": 1, "description": "objects below this score are left out"}
    )
    iou_threshold: float = field(
        default=0.45, metadata={"ge": 0, "le": 1, "description": "of two boxes that overlap more, one is left out"}
    )
    max_detections: int = field(default=300, metadata={"ge": 1, "description": "how many objects a result keeps"})
    keypoints: tuple[str, ...] = field(default=(), metadata={"description": "names of the keypoints, in output order"})
    skeleton: tuple[tuple[int, int], ...] = field(
        default=(), metadata={"description": "pairs of keypoint numbers that an overlay joins"}
    )
    options: dict[str, Any] = field(default_factory=dict, metadata={"description": "settings of the head"})


@dataclass(frozen=True)
class DataSpec:
    """A data set: ``sklearn-digits`` (bundled), ``imagefolder`` (a folder a class), ``csv`` (file,label), ``coco``
    (instances json with boxes) or ``images`` (a folder or glob of pictures without labels).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    kind: Literal["sklearn-digits", "imagefolder", "csv", "coco", "images"] = field(metadata={"description": "reader"})
    path: str | None = field(
        default=None, metadata={"description": "folder, csv file, instances json or glob, relative to the recipe"}
    )
    split: Literal["train", "test", "all"] = field(default="all", metadata={"description": "part of a bundled set"})
    root: str | None = field(
        default=None, metadata={"description": "csv, coco: folder of the images (default: of the file)"}
    )
    file_column: str = field(default="file", metadata={"description": "csv: column with the image's path"})
    label_column: str = field(default="label", metadata={"description": "csv: column with class name or number"})
    only: str | None = field(
        default=None,
        metadata={"min_length": 1, "description": "coco, images: glob, or a part, of the file name or coco_url"},
    )
    limit: int | None = field(default=None, metadata={"ge": 1, "description": "use an even pick of so many samples"})
    strict: bool = field(default=False, metadata={"description": "refuse unreadable images instead of skipping them"})


@dataclass(frozen=True)
class CalibrationSpec:
    """A calibration set picked at build time, where no manifest is named."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    source: DataSpec = field(metadata={"description": "data set to pick from"})
    samples: int = field(default=128, metadata={"ge": 1, "description": "how many pictures"})
    select: Literal["random", "stratified", "k-center"] = field(
        default="stratified", metadata={"description": "selection rule"}
    )
    seed: int = field(default=0, metadata={"ge": 0, "description": "seed of the selection"})


@dataclass(frozen=True)
class Data:
    """The data sets of a recipe. Without ``eval`` nothing can be proven, so it is required."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    eval: DataSpec = field(metadata={"description": "evaluation set; every compiled file runs on all of it"})
    train: DataSpec | None = field(default=None, metadata={"description": "needed by finetune, qat and taylor pruning"})
    calibration: Union[str, CalibrationSpec, None] = field(
        default=None, metadata={"description": "name or path of a calibration manifest, or a selection"}
    )


@dataclass(frozen=True)
class Prune:
    """Pruning. Structured (whole channels go): exactly one of ``speedup``, ``ratio`` and ``latency_ms``.

    With ``by: latency`` or ``latency_ms`` times measured on ``target`` decide which channels go. With a
    ``pattern`` single weights become zero and no channel goes: 2:4 takes neither of the three,
    unstructured takes ``ratio``.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    importance: Literal["magnitude", "taylor", "bn-scale", "lamp", "fpgm", "random"] = field(
        default="magnitude", metadata={"description": "which channels matter"}
    )
    speedup: float | None = field(
        default=None,
        metadata={"gt": 1, "le": 64, "description": "MACs before / after; by latency: time before / after"},
    )
    ratio: float | None = field(
        default=None, metadata={"gt": 0, "lt": 1, "description": "share of channels to cut (unstructured: of weights)"}
    )
    latency_ms: float | None = field(
        default=None, metadata={"gt": 0, "description": "median of the float network's engine call on target, batch 1"}
    )
    by: Literal["macs", "latency"] = field(
        default="macs", metadata={"description": "what speedup counts; latency_ms always goes by latency"}
    )
    target: str | None = field(
        default=None,
        metadata={"description": "by latency: one of the recipe's targets (default: the first that is this machine)"},
    )
    pattern: Literal["2:4", "unstructured"] | None = field(
        default=None, metadata={"description": "zero single weights instead of cutting channels"}
    )
    scope: Literal["global", "uniform"] = field(
        default="global", metadata={"description": "rank over all layers, or in each"}
    )
    round_to: int | None = field(
        default=None,
        metadata={
            "ge": 1,
            "le": 64,
            "description": "channel counts are multiples of this (default: what all of the targets like)",
        },
    )
    max_layer_ratio: float = field(
        default=0.8, metadata={"gt": 0, "lt": 1, "description": "no layer loses a larger share than this"}
    )
    steps: int = field(default=1, metadata={"ge": 1, "le": 100, "description": "reach the target in so many rounds"})
    protect: tuple[str, ...] = field(default=(), metadata={"description": "module name globs never to prune"})
    samples: int = field(default=256, metadata={"ge": 1, "description": "training samples for taylor and repair"})
    repair: bool = field(
        default=False,
        metadata={"description": "solve the weights behind cut channels by least squares on training samples"},
    )

    @property
    def needs_training(self) -> bool:
        """Whether training samples are looked at."""
        return self.pattern is None and (self.importance == "taylor" or self.repair)

    @property
    def by_latency(self) -> bool:
        """Whether measured times decide which channels go."""
        return self.pattern is None and (self.latency_ms is not None or self.by == "latency")


@dataclass(frozen=True)
class Distill:
    """Knowledge distillation from the original model (Hinton et al. 2015, arXiv:1503.02531)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    weight: float = field(default=0.5, metadata={"ge": 0, "le": 1, "description": "share of the teacher's loss"})
    temperature: float = field(default=4.0, metadata={"gt": 0, "description": "softens both distributions"})


@dataclass(frozen=True)
class Finetune:
    """Training after pruning. With 0 epochs nothing is trained, and neither data nor a loss is needed."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    epochs: int = field(metadata={"ge": 0, "le": 10000, "description": "passes over the training set"})
    lr: float = field(default=1e-3, metadata={"gt": 0, "description": "peak learning rate"})
    batch_size: int = field(default=64, metadata={"ge": 1, "description": "samples a step and device"})
    optimizer: Literal["adamw", "sgd"] = field(default="adamw", metadata={"description": "optimiser"})
    weight_decay: float = field(default=1e-4, metadata={"ge": 0, "description": "decoupled weight decay"})
    warmup: float = field(default=0.05, metadata={"ge": 0, "lt": 1, "description": "share of steps that ramp up"})
    distill: Union[float, Distill] = field(
        default=0.0, metadata={"description": "share of the teacher's loss (0 = none), or {weight, temperature}"}
    )
    patience: int | None = field(
        default=None, metadata={"ge": 1, "description": "stop after so many epochs without gain"}
    )
    augment: Literal["none", "crop", "crop-flip"] = field(default="none", metadata={"description": "augmentation"})
    validation: float = field(
        default=0.1,
        metadata={"gt": 0, "lt": 0.9, "description": "share of the training set held out to pick the best epoch"},
    )
    precision: Literal["32", "16-mixed", "bf16-mixed"] = field(default="32", metadata={"description": "AMP"})
    label_smoothing: float = field(default=0.0, metadata={"ge": 0, "lt": 1, "description": "label smoothing"})


@dataclass(frozen=True)
class Quantize:
    """Bring the model to low precision: fp16, post-training int8 or quantisation-aware int8."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    method: Literal["none", "fp16", "ptq", "qat"] = field(metadata={"description": "how"})
    scheme: Literal["portable", "symmetric", "affine"] = field(
        default="portable",
        metadata={"description": "portable: the best that all targets take; symmetric; affine: with zero points"},
    )
    keep_float: tuple[str, ...] = field(
        default=(),
        metadata={"description": "what stays float: module name globs, op:NAME such as op:add, or node:NAME"},
    )
    ranges: Literal["mean-minmax", "minmax", "percentile", "mse", "entropy"] = field(
        default="mean-minmax",
        metadata={
            "description": "ptq: mean of the pictures' ranges (cuts outliers), the widest range seen, "
            "99.99 % of the values, the least squared error, or the least loss of information"
        },
    )
    equalize: bool = field(
        default=False, metadata={"description": "ptq: even out the channels of neighbouring layers first"}
    )
    adaround: tuple[str, ...] = field(
        default=(), metadata={"description": "ptq: layer name globs whose weights learn which way to round"}
    )
    repair: Literal["off", "ptq", "full"] = field(
        default="off",
        metadata={
            "description": "what is tried while budgets.accuracy.max_drop is not met: nothing, "
            "settings without training, or qat as well"
        },
    )
    bias_correction: bool = field(default=True, metadata={"description": "ptq: correct the shift of biases"})
    smooth_quant: bool = field(default=False, metadata={"description": "ptq: SmoothQuant, for transformers"})
    epochs: int = field(default=3, metadata={"ge": 1, "description": "qat: passes over the training set"})
    lr: float = field(default=1e-4, metadata={"gt": 0, "description": "qat: peak learning rate"})
    batch_size: int = field(default=64, metadata={"ge": 1, "description": "qat: samples a step"})
    distill: Union[float, Distill] = field(default=0.5, metadata={"description": "qat: share of the teacher's loss"})


Step = Union[Prune, Finetune, Quantize]
"""One change of the model. In YAML a step is a mapping with one key: ``prune``, ``finetune`` or ``quantize``."""

STEP_KEYS: dict[str, type[Step]] = {"prune": Prune, "finetune": Finetune, "quantize": Quantize}


FAMILY_METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("top1", "top5"),
    "detection": ("ap", "ap50"),
    "pose": ("pck",),
    "embedding": ("recall1", "map"),
}
"""The metrics of each family, the usual one first, as its module has them: a recipe is read without loading those."""


@dataclass(frozen=True)
class AccuracyBudget:
    """How much of the metric may be lost against the original float model."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    metric: Literal["top1", "top5", "ap", "ap50", "pck", "recall1", "map"] = field(
        default="top1", metadata={"description": "metric of the family (default: the family's first)"}
    )
    max_drop: float | None = field(default=None, metadata={"ge": 0, "le": 1, "description": "0.01 = one point"})
    min: float | None = field(default=None, metadata={"ge": 0, "le": 1, "description": "lowest allowed value"})


@dataclass(frozen=True)
class LatencyBudget:
    """Limits in milliseconds at batch 1, picture to decoded result."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    p50_ms: float | None = field(default=None, metadata={"gt": 0, "description": "median"})
    p95_ms: float | None = field(default=None, metadata={"gt": 0, "description": "95th percentile"})
    p99_ms: float | None = field(default=None, metadata={"gt": 0, "description": "99th percentile"})


@dataclass(frozen=True)
class Budgets:
    """What the artifacts are held against; a missing one is not checked."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    accuracy: AccuracyBudget | None = field(default=None, metadata={"description": "task metric"})
    latency: LatencyBudget | None = field(default=None, metadata={"description": "milliseconds at batch 1"})
    size_mb: float | None = field(default=None, metadata={"gt": 0, "description": "model file, in 10^6 bytes"})
    size_ratio: float | None = field(
        default=None, metadata={"gt": 0, "le": 2, "description": "model file / the same backend's float file"}
    )


@dataclass(frozen=True)
class Override:
    """Other values for the targets whose name matches the glob ``select``."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    select: str = field(metadata={"description": "target name glob, such as raspberry-pi-*"})
    set: dict[str, Any] = field(
        metadata={"description": "dotted recipe paths and their values, such as budgets.latency.p95_ms: 40"}
    )


@dataclass(frozen=True)
class Measure:
    """How latency is measured; ``fps`` is the camera rate of the paced run."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    protocol: Literal["full", "quick", "smoke"] = field(
        default="full",
        metadata={"description": "full: 1024 runs and 60 s; quick: 128 and 10 s; smoke: 32 and 1 s, to try a recipe"},
    )
    fps: float = field(default=30.0, metadata={"gt": 0, "le": 1000, "description": "camera rate of the paced run"})


@dataclass(frozen=True)
class Recipe:
    """The whole of what `edgecv optimize` is asked to do."""

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    recipe: Literal[1] = field(metadata={"description": "version of the recipe format"})
    name: str = field(metadata={"pattern": r"^[a-z0-9][a-z0-9._-]{0,63}$", "description": "names the output folder"})
    model: ModelSpec = field(metadata={"description": "network, weights and input"})
    family: FamilySpec = field(metadata={"description": "what the outputs mean"})
    data: Data = field(metadata={"description": "data sets"})
    targets: tuple[str, ...] = field(metadata={"min_length": 1, "description": "names or paths of target files"})
    steps: tuple[Step, ...] = field(default=(), metadata={"description": "changes of the model, in order"})
    budgets: Budgets = field(default_factory=Budgets, metadata={"description": "what CI gates on"})
    measure: Measure = field(default_factory=Measure, metadata={"description": "latency protocol"})
    overrides: tuple[Override, ...] = field(default=(), metadata={"description": "values for some targets"})
    seed: int = field(default=0, metadata={"ge": 0, "description": "seed of everything random"})
