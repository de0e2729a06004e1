"""The steps of a recipe: what is done to the model, as frozen dataclasses (see `edgecv.core.recipe`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Union

from edgecv.core.contract import FORBID_UNKNOWN

__all__ = [
    "AUGMENTS",
    "STEP_KEYS",
    "Augment",
    "AugmentName",
    "Distill",
    "Finetune",
    "Fit",
    "Prune",
    "Quantize",
    "Step",
    "augment_of",
]


@dataclass(frozen=True)
class Prune:
    """Pruning. Structured (whole channels go): exactly one of ``speedup``, ``ratio`` and ``latency_ms``.

    With ``by: latency`` or ``latency_ms`` times measured on ``target`` decide which channels go. With a
    ``pattern`` single weights become zero and no channel goes: 2:4 takes neither of the three,
    unstructured takes ``ratio``.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    importance: Literal["auto", "output", "magnitude", "taylor", "bn-scale", "lamp", "fpgm", "random"] = field(
        default="auto",
        metadata={
            "description": "which channels matter (auto: output, the measured change of the outputs, "
            "where there is data.train, else magnitude)"
        },
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
    samples: int = field(
        default=256, metadata={"ge": 1, "description": "training samples for output, taylor and repair"}
    )
    repair: bool | None = field(
        default=None,
        metadata={
            "description": "solve the weights behind cut channels by least squares on training samples "
            "(default: where there is data.train)"
        },
    )

    @property
    def needs_training(self) -> bool:
        """Whether training samples are looked at."""
        return self.pattern is None and (self.importance in ("output", "taylor") or bool(self.repair))

    @property
    def by_latency(self) -> bool:
        """Whether measured times decide which channels go."""
        return self.pattern is None and (self.latency_ms is not None or self.by == "latency")


@dataclass(frozen=True)
class Distill:
    """Knowledge distillation from the original model (Hinton et al. 2015, arXiv:1503.02531).

    What is compared follows from the family: logits, boxes and scores, heatmaps, vectors. Families that do not
    train on labels (all but classification) learn from the teacher alone, whatever its share. ``features`` adds
    results inside of the network (attention transfer: Zagoruyko and Komodakis 2017, arXiv:1612.03928).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    weight: float = field(
        default=0.5,
        metadata={"ge": 0, "le": 1, "description": "share of the teacher's loss; 1 needs no labels"},
    )
    temperature: float = field(default=4.0, metadata={"gt": 0, "description": "softens both distributions"})
    features: tuple[str, ...] = field(
        default=(), metadata={"description": "module name globs whose results are compared as well"}
    )
    feature_weight: float = field(
        default=1.0, metadata={"gt": 0, "description": "of the features' loss, on top of the outputs'"}
    )


@dataclass(frozen=True)
class Augment:
    """Random changes of the pictures that are trained on, drawn anew for each picture and epoch; truths go with them.

    ``crop`` stands for the defaults, ``crop-flip`` for those and ``flip``, ``strong`` for `AUGMENTS`'s.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    shift: float = field(
        default=0.125, metadata={"ge": 0, "le": 0.5, "description": "moves by up to this share of the sides"}
    )
    flip: bool = field(default=False, metadata={"description": "mirrors half of the pictures, left to right"})
    scale: tuple[float, float] = field(
        default=(1.0, 1.0), metadata={"description": "zooms by a factor from this range, such as [0.6, 1.5]"}
    )
    color: float = field(
        default=0.0,
        metadata={"ge": 0, "le": 0.9, "description": "brightness, contrast and saturation by up to this share"},
    )
    mosaic: float = field(
        default=0.0, metadata={"ge": 0, "le": 1, "description": "this share of the pictures is made of four"}
    )

    @property
    def parts(self) -> tuple[str, ...]:
        """Which of the changes are on: shift, flip, scale, color, mosaic."""
        on = (self.shift > 0, self.flip, tuple(self.scale) != (1.0, 1.0), self.color > 0, self.mosaic > 0)
        return tuple(
            name for name, there in zip(("shift", "flip", "scale", "color", "mosaic"), on, strict=True) if there
        )


AugmentName = Literal["none", "crop", "crop-flip", "strong"]
AUGMENTS: dict[AugmentName, Augment | None] = {
    "none": None,
    "crop": Augment(),
    "crop-flip": Augment(flip=True),
    "strong": Augment(flip=True, scale=(0.6, 1.5), color=0.3),
}
"""What the words of ``augment`` stand for."""


def augment_of(given: AugmentName | Augment) -> Augment | None:
    """The changes that ``augment`` of a step asks for; None for none."""
    return given if isinstance(given, Augment) else AUGMENTS[given]


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
        default=0.0,
        metadata={"description": "share of the teacher's loss (0 = none), or {weight, temperature, features}"},
    )
    patience: int | None = field(
        default=None, metadata={"ge": 1, "description": "stop after so many epochs without gain"}
    )
    augment: Union[AugmentName, Augment] = field(
        default="none",
        metadata={"description": "random changes of pictures: a word, or {shift, flip, scale, color, mosaic}"},
    )
    validation: float = field(
        default=0.1,
        metadata={"gt": 0, "lt": 0.9, "description": "share of the training set held out to pick the best epoch"},
    )
    precision: Literal["32", "16-mixed", "bf16-mixed"] = field(default="32", metadata={"description": "AMP"})
    ema: float = field(
        default=0.0,
        metadata={"ge": 0, "lt": 1, "description": "keep a moving average of the weights, such as 0.999 (0 = none)"},
    )
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
    ranges: Literal["auto", "mean-minmax", "minmax", "percentile", "mse", "entropy"] = field(
        default="auto",
        metadata={
            "description": "ptq: whichever keeps the network's outputs best on calibration pictures; mean of the "
            "pictures' ranges (cuts outliers), the widest range seen, 99.99 % of the values, the least squared "
            "error, or the least loss of information"
        },
    )
    equalize: bool = field(
        default=False, metadata={"description": "ptq: even out the channels of neighbouring layers first"}
    )
    level: float = field(
        default=0.0,
        metadata={
            "ge": 0,
            "le": 1,
            "description": "ptq: how far channels that layers mix are brought to one size first; 1 is all the way",
        },
    )
    split: tuple[str, ...] = field(
        default=(),
        metadata={
            "description": "depthwise layers (name globs) whose channels get two to four scales by their size, "
            "in as many parts; for SiLU, hard swish and ReLU6, where channels cannot be brought to one size"
        },
    )
    sums: Literal["shared", "own"] = field(
        default="shared",
        metadata={
            "description": "shared: what is added has the scale of the sum, so that all engines round alike; "
            "own: each has its own, more exact where a small tensor is added to a large one"
        },
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
    distill: Union[float, Distill] = field(
        default=0.5,
        metadata={"description": "qat: share of the teacher's loss, or {weight, temperature, features}"},
    )
    augment: Union[AugmentName, Augment] = field(
        default="none", metadata={"description": "qat: random changes of pictures, as in finetune"}
    )
    ema: float = field(
        default=0.0,
        metadata={
            "ge": 0,
            "lt": 1,
            "description": "qat: keep a moving average of the weights, such as 0.999 (0 = none)",
        },
    )
    step_sizes: Literal["observed", "learned"] = field(
        default="observed",
        metadata={"description": "qat: scales follow the observed ranges, or are trained like weights (LSQ)"},
    )
    freeze_ranges: float = field(
        default=0.67,
        metadata={"gt": 0, "le": 1, "description": "qat: observed ranges stand still after this share of the epochs"},
    )
    freeze_norms: float = field(
        default=0.0,
        metadata={
            "ge": 0,
            "le": 1,
            "description": "qat: batch norms keep their statistics after this share of the epochs; 0: from the start",
        },
    )


@dataclass(frozen=True)
class Fit:
    """Show a network of family anomaly what is usual: it looks at good pictures and keeps what it needs, untrained.

    As the first step it completes the original network, which all that follows is compared with; after pruning or
    training it does the same for the network as it is then.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    samples: int = field(default=512, metadata={"ge": 2, "description": "good pictures of data.train to look at"})
    held_out: float = field(
        default=0.25,
        metadata={"gt": 0, "lt": 0.9, "description": "share of them that only sets the limit between good and defect"},
    )
    quantile: float = field(
        default=0.99,
        metadata={"gt": 0, "le": 1, "description": "share of the held out ones that stay below score_threshold"},
    )


Step = Union[Prune, Finetune, Fit, Quantize]
"""One change of the model. In YAML a step is a mapping with one key: ``prune``, ``finetune``, ``fit``, ``quantize``."""

STEP_KEYS: dict[str, type[Step]] = {"prune": Prune, "finetune": Finetune, "fit": Fit, "quantize": Quantize}
