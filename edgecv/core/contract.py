"""The input contract: how a picture becomes the numbers that a model expects.

Declared once in the recipe, carried in the manifest, and the only source of pre-processing in
training, calibration, evaluation and on the device.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

Color = Literal["rgb", "bgr", "gray"]
Resize = Literal["stretch", "letterbox", "letterbox-topleft", "crop"]
Interpolation = Literal["nearest", "linear", "cubic", "area"]

ClipLayout = Literal["stacked", "TCHW", "CTHW"]

FORBID_UNKNOWN: dict[str, Any] = {"extra": "forbid"}
"""Read by pydantic where a class has it as ``__pydantic_config__``: unknown keys are errors."""


@dataclass(frozen=True)
class Clip:
    """How many frames of a video a network sees at once, oldest first, and how far they are apart.

    ``layout`` is what the network itself takes: ``stacked`` `(N, T * C, H, W)`, ``TCHW`` `(N, T, C, H, W)` or
    ``CTHW`` `(N, C, T, H, W)`. What edgecv builds always takes ``stacked`` and makes the other shapes inside.

    With ``stream`` the network is trained on clips, and built to look at one frame at a time: what it saw before is
    kept in a state, which begins with zeros (`edgecv.models.streaming`).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    frames: int = field(metadata={"ge": 2, "le": 256, "description": "frames of a clip"})
    fps: float = field(metadata={"gt": 0, "le": 1000, "description": "frames of a clip in a second of the video"})
    layout: ClipLayout = field(default="stacked", metadata={"description": "shape of clips that the network takes"})
    stream: bool = field(
        default=False, metadata={"description": "built to take one frame at a time, with a state kept between frames"}
    )

    @property
    def span_s(self) -> float:
        """Seconds from the first frame of a clip to the last."""
        return (self.frames - 1) / self.fps


@dataclass(frozen=True)
class InputContract:
    """Picture (uint8, any size) -> network input of ``size``.

    The order is fixed: colour, resize, then ``x = low + pixel / 255 * (high - low)`` with
    ``range = (low, high)``, then ``(x - mean) / std`` per channel. ``mean`` and ``std`` have one value
    per channel (1 for gray, 3 otherwise) in the channel order of ``color``.

    ``resize``: ``stretch`` ignores the aspect ratio; ``letterbox`` keeps it and pads both sides with
    ``pad_value`` (0..255); ``letterbox-topleft`` pads right and bottom only; ``crop`` scales the
    shorter side to ``size / crop_ratio`` and cuts the centre.

    With ``vector`` the input is no picture but a row of ``size[1]`` numbers, ``size`` is (1, count) and only ``mean``
    and ``std`` (one value each) count: each number becomes ``(x - mean) / std``.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN

    size: tuple[int, int] = field(metadata={"description": "height and width of the network input, in pixels"})
    color: Color = field(default="rgb", metadata={"description": "channel order that the network was trained on"})
    mean: tuple[float, ...] = field(default=(0.0, 0.0, 0.0), metadata={"description": "subtracted, per channel"})
    std: tuple[float, ...] = field(default=(1.0, 1.0, 1.0), metadata={"description": "divided by, per channel"})
    range: tuple[float, float] = field(
        default=(0.0, 1.0), metadata={"description": "what pixel values 0 and 255 become before mean and std"}
    )
    resize: Resize = field(default="stretch", metadata={"description": "how the picture is brought to size"})
    crop_ratio: float = field(default=0.875, metadata={"gt": 0, "le": 1, "description": "used by resize: crop"})
    pad_value: int = field(default=114, metadata={"ge": 0, "le": 255, "description": "used by resize: letterbox"})
    interpolation: Interpolation = field(default="linear", metadata={"description": "resampling filter"})
    clip: Clip | None = field(
        default=None, metadata={"description": "frames that the network sees at once; without it, one picture"}
    )
    vector: bool = field(
        default=False,
        metadata={"description": "the input is a row of numbers, not a picture: size is [1, count]; not in recipes"},
    )

    @property
    def channels(self) -> int:
        """Channels of one picture: 1 for gray, 3 otherwise; a row of numbers has 1."""
        return 1 if self.color == "gray" or self.vector else 3

    @property
    def planes(self) -> int:
        """Channels of the network's input: those of a picture, or of all frames of a clip."""
        return self.channels * (1 if self.clip is None else self.clip.frames)

    @property
    def streams(self) -> bool:
        """Whether the built network takes one frame at a time and keeps a state in between."""
        return self.clip is not None and self.clip.stream

    @property
    def once(self) -> InputContract:
        """The same for what the built network takes in a run: a picture, a whole clip, or a frame where it streams."""
        return self.still if self.streams else self

    @property
    def still(self) -> InputContract:
        """The same for one picture, or for one frame of a clip."""
        return self if self.clip is None else replace(self, clip=None)

    def problems(self) -> list[str]:
        """What is wrong with this contract, in words; empty when it is sound."""
        found = []
        if min(self.size) < 1 or max(self.size) > 16384:
            found.append(f"size is {list(self.size)}; height and width must lie within 1..16384")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                what = "a row of numbers" if self.vector else f"color {self.color}"
                found.append(f"{name} has {len(values)} values; {what} needs {self.channels}")
        if any(value == 0 for value in self.std):
            found.append(f"std is {list(self.std)}; 0 would divide by zero")
        if self.clip is not None and not (2 <= self.clip.frames <= 256 and 0 < self.clip.fps <= 1000):
            found.append(
                f"clip has {self.clip.frames} frames at {self.clip.fps:g} fps; allowed are 2..256 at more than 0, "
                "up to 1000 fps"
            )
        if self.vector and (self.size[0] != 1 or self.clip is not None):
            found.append(f"vector has size {list(self.size)}; a row of numbers needs [1, count], and no clip")
        if self.clip is not None and self.clip.stream and self.clip.layout != "stacked":
            found.append(f"clip has layout {self.clip.layout}; a network that streams takes frames: leave layout out")
        if self.range[0] == self.range[1]:
            found.append(f"range is {list(self.range)}; the two ends must differ")
        return found
