"""What a segmentation network says about a picture, and the truth that it is held against: a class for every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgecv.core.contract import InputContract
from edgecv.core.results import label_of
from edgecv.core.tensor import FloatArray
from edgecv.vision.draw import color_of, put_text
from edgecv.vision.image import Image
from edgecv.vision.maps import NO_CLASS, Classes, fit_map

__all__ = ["NO_CLASS", "ClassMap", "MaskTruth", "class_color"]

_NOT_PAINTED = frozenset({"background", "__background__", "unlabelled", "unlabeled", "void", "none"})
_COLORS = 12
_LEGEND_ROWS = 8
_LEGEND_SHARE = 0.005
_PAINT = 0.5
_SMALL = 0.01


@dataclass(frozen=True)
class ClassMap:
    """The class of every pixel of one picture.

    ``classes`` is `(H, W)` uint8, indices of ``labels``, `NO_CLASS` for pixels that the network did not see (a
    crop cut them away). ``scores`` `(H, W)` float32 0..1 are there where the recipe asks for them.
    """

    classes: Classes
    labels: tuple[str, ...] = ()
    scores: FloatArray | None = None

    def __post_init__(self) -> None:
        if self.classes.ndim != 2 or self.classes.dtype != np.uint8:
            raise ValueError(f"classes is {self.classes.dtype} of shape {self.classes.shape}; uint8 (H, W) is needed")
        if self.scores is not None and self.scores.shape != self.classes.shape:
            raise ValueError(f"scores have shape {self.scores.shape}; {self.classes.shape} is needed, as of classes")

    @cached_property
    def shares(self) -> npt.NDArray[np.float64]:
        """Share of the picture's area, 0..1, of each class `(C,)`; C is the number of labels."""
        counts = np.bincount(self.classes.ravel(), minlength=NO_CLASS + 1)[: len(self.labels)]
        found: npt.NDArray[np.float64] = counts / self.classes.size
        return found

    def present(self) -> list[int]:
        """The classes that occur, largest area first."""
        return [int(index) for index in np.argsort(-self.shares, kind="stable") if self.shares[index] > 0]

    def mask(self, index: int) -> npt.NDArray[np.bool_]:
        """Where class ``index`` is, `(H, W)`."""
        found: npt.NDArray[np.bool_] = self.classes == index
        return found

    def likeness(self, other: ClassMap) -> float:
        """Mean overlap 0..1 (intersection over union) of the classes that hold a hundredth of the picture in either.

        0 where the sizes differ. Like the metric, and unlike a share of pixels, it minds a small class as much as a
        background that nobody gets wrong.
        """
        if self.classes.shape != other.classes.shape:
            return 0.0
        overlaps = []
        for index in np.union1d(self.classes, other.classes):
            mine, theirs = self.classes == index, other.classes == index
            if max(mine.mean(), theirs.mean()) >= _SMALL:
                overlaps.append(float((mine & theirs).sum() / (mine | theirs).sum()))
        return float(np.mean(overlaps)) if overlaps else float((self.classes == other.classes).mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``size`` [height, width] and ``classes``, a list of id, label and share of the area.

        The map itself is left out: it has as many values as the picture.
        """
        found: list[dict[str, Any]] = []
        for index in self.present():
            item = {"id": index, "label": label_of(self.labels, index), "share": round(float(self.shares[index]), 6)}
            if self.scores is not None:
                item["score"] = round(float(self.scores[self.mask(index)].mean()), 5)
            found.append(item)
        return {"size": list(self.classes.shape), "classes": found}

    def words(self) -> str:
        """The classes with their shares of the area, on one line."""
        named = (f"{label_of(self.labels, index)} {self.shares[index]:.1%}" for index in self.present())
        return ", ".join(named) or "no class"

    def painted(self) -> Image:
        """The classes as colours, `(H, W, 3)` BGR; black where there is no class."""
        table = np.zeros((3, 256), dtype=np.uint8)
        for index in range(len(self.labels)):
            table[:, index] = class_color(index)
        colors: Image = cv2.merge([cv2.LUT(self.classes, row) for row in table]).astype(np.uint8, copy=False)
        return colors

    def draw(self, image: Image, scale: float) -> None:
        """Paint the classes over ``image`` (uint8 `(H, W, 3)` BGR), half transparent, with a legend at the bottom left.

        Classes named background, void or unlabelled are not painted. A picture of another size than the map's
        has the map stretched over it.
        """
        shown = self.classes
        if shown.shape != image.shape[:2]:
            size = (image.shape[1], image.shape[0])
            shown = cv2.resize(shown, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8, copy=False)
        plain = [label.casefold() in _NOT_PAINTED for label in self.labels]
        table = np.zeros(256, dtype=np.uint8)
        table[: len(plain)] = [0 if left else 255 for left in plain]
        colors = ClassMap(shown, self.labels).painted()
        mixed = cv2.addWeighted(image, 1 - _PAINT, colors, _PAINT, 0)
        cv2.copyTo(mixed, cv2.LUT(shown, table), image)
        named = [index for index in self.present() if self.shares[index] >= _LEGEND_SHARE and not plain[index]]
        for row, index in enumerate(reversed(named[:_LEGEND_ROWS])):
            words = f"{label_of(self.labels, index)} {self.shares[index]:.0%}"
            put_text(image, words, (6, image.shape[0] - 6 - round(row * 26 * scale)), scale, class_color(index))


@dataclass(frozen=True)
class MaskTruth:
    """The true class of every pixel: ``classes`` `(H, W)` uint8, `NO_CLASS` where a pixel is not judged."""

    classes: Classes

    def __post_init__(self) -> None:
        if self.classes.ndim != 2 or self.classes.dtype != np.uint8:
            raise ValueError(f"classes is {self.classes.dtype} of shape {self.classes.shape}; uint8 (H, W) is needed")

    @property
    def fill(self) -> float:
        """The value of pixels outside the picture."""
        return NO_CLASS

    def to_network(self, contract: InputContract) -> Classes:
        """The map where the contract puts the picture's pixels, `(h, w)` uint8, `NO_CLASS` in the padding."""
        return fit_map(self.classes, contract, fill=NO_CLASS).astype(np.uint8, copy=False)


def class_color(index: int) -> tuple[int, int, int]:
    """A colour (BGR) for a class; after twelve classes they come again, darker."""
    blue, green, red = color_of(index)
    dark = 0.62 ** (index // _COLORS)
    return round(blue * dark), round(green * dark), round(red * dark)
