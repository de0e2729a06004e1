"""Classification of videos: one score per class for the last moments of a camera, told with every frame.

The network sees a clip, ``model.input.clip``: some frames of the last seconds. With ``clip.stream`` it sees one frame
at a time and keeps what it saw before in a state, so that a frame costs one frame's work. Scores, metrics and loss are
those of `edgecv.families.classification`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.results import Classification, label_of
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import UsageError
from edgecv.families import classification

KIND = "video"
HEAD_NAMES: tuple[str, ...] = ()
METRICS: tuple[str, ...] = classification.METRICS

protected = classification.protected
loss = classification.loss


@dataclass(frozen=True)
class Action:
    """What happens in a clip: the scores of its classes, and the ``seconds`` that the network saw for them.

    ``seconds`` is less than the clip's span while a camera has just begun; None where nobody kept the time.
    """

    classes: Classification
    seconds: float | None = None

    @property
    def best(self) -> int:
        """Index of the best class."""
        return self.classes.best

    def seen(self, seconds: float) -> Action:
        """The same, told from so many seconds of the camera."""
        return replace(self, seconds=seconds)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``classes`` as of a classification and, in a camera loop, ``seconds``."""
        told = {} if self.seconds is None else {"seconds": round(self.seconds, 3)}
        return {**self.classes.to_dict(), **told}

    def words(self) -> str:
        """The best classes with their scores, on one line."""
        return self.classes.words() + ("" if self.seconds is None else f" (last {self.seconds:.1f} s)")

    def brief(self) -> str:
        """The name of the best class."""
        return self.classes.brief()

    def draw(self, image: Any, scale: float) -> None:
        """The best class in large letters and, below it, a bar for each of the best classes."""
        import cv2

        from edgecv.vision.draw import color_of, put_text

        classes = self.classes
        height, wide = round(30 * scale) + 4, round(220 * scale)
        best = f"{label_of(classes.labels, self.best)} {classes.scores[self.best]:.0%}"
        put_text(image, best, (6, height + 4), 1.6 * scale, color_of(self.best))
        for row, index in enumerate(classes.class_ids[1:5], start=2):
            bottom = 4 + round((row + 0.5) * height)
            if bottom > image.shape[0] // 2:  # a small picture has no room for more
                break
            share = max(1, round(wide * float(classes.scores[index])))
            cv2.rectangle(image, (6, bottom), (6 + share, bottom + 2), color_of(int(index)), -1)
            put_text(image, f"{label_of(classes.labels, int(index))}", (6, bottom - 2), 0.8 * scale, (40, 40, 40))


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why outputs of this shape are no scores of ``spec.labels``: see `classification.problems`."""
    return [text.replace("classification needs", "video needs") for text in classification.problems(spec, outputs)]


def decode(
    outputs: Sequence[FloatArray],
    spec: FamilySpec,
    contract: InputContract,
    *,
    picture: tuple[int, int] | None = None,
) -> Action:
    """Scores of one clip, ``outputs[0]`` float32 `(1, C)` -> the classes: see `classification.decode`.

    Raises:
        ModelError: the outputs do not fit the labels, or hold NaN or infinity.
    """
    return Action(classification.decode(outputs, spec, contract, picture=picture))


def agree(one: Action, other: Action) -> bool:
    """Whether both name the same best class."""
    return one.best == other.best


def metric(spec: FamilySpec, name: str) -> ClipAccuracy:
    """Counts right answers; ``name`` is one of `METRICS`.

    Raises:
        UsageError: there is no such metric.
    """
    if name not in METRICS:
        raise UsageError(f"video has no metric {name!r}; allowed: {', '.join(METRICS)}")
    return ClipAccuracy(classification.metric(spec, name))


class ClipAccuracy:
    """Top-1 and top-5 over clips: see `classification.Accuracy`."""

    def __init__(self, inner: classification.Accuracy) -> None:
        self._inner = inner
        self.compute = inner.compute

    def update(self, result: Action, truth: Any) -> None:
        """Count one clip; ``truth`` is its class index, 0 for the first label.

        Raises:
            DataError: ``truth`` is no class index.
        """
        self._inner.update(result.classes, truth)
