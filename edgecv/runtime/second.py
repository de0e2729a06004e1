"""The second stage: a model that looks at each object of the first one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from edgecv.core.kinds import FAMILY_KINDS
from edgecv.core.results import Detections
from edgecv.core.tensor import Array
from edgecv.errors import UsageError
from edgecv.families.gallery import Gallery
from edgecv.runtime.gallery import open_gallery
from edgecv.runtime.spec import SecondStage
from edgecv.runtime.work import Level, load_levels
from edgecv.vision.crops import CROP_MARGIN, crop

MOST_OBJECTS, MOST_PIECES = 8, 100
"""Of a frame so many are looked at where nothing else is asked for."""
_FORGET_AFTER_FRAMES = 300


@dataclass
class SecondRunner:
    """Crops objects, runs the model on each, and maps what it says back to the picture.

    Answers of tracked objects are kept for ``spec.every`` frames. Used from one thread.
    """

    level: Level
    spec: SecondStage
    gallery: Gallery | None = None
    _known: dict[int, tuple[int, Any]] = field(default_factory=dict)
    _frame: int = 0

    def apply(self, image: Array, found: Any) -> Any:
        """``found`` (`Detections` or `Pieces`) in ``image`` (uint8 BGR or gray) with what the model says of each.

        ``second`` is one answer for each object, None for those that it did not look at.

        Raises:
            EdgecvError: the engine or the decoder failed.
        """
        if isinstance(found, Detections):
            return self._objects(image, found)
        most = MOST_PIECES if self.spec.max_objects is None else self.spec.max_objects
        answers: list[Any] = [None] * len(found.scores)
        for row in np.argsort(-found.scores, kind="stable")[:most]:
            part = found.cut(image, int(row), margin=1.0 if self.spec.margin is None else self.spec.margin)
            answers[row] = None if part is None else self._named(ask(self.level, part))
        return found.answered(tuple(answers))

    def _objects(self, image: Array, found: Detections) -> Detections:
        self._frame += 1
        most = MOST_OBJECTS if self.spec.max_objects is None else self.spec.max_objects
        answers: list[Any] = [None] * len(found)
        looked = 0
        for row in np.argsort(-found.scores, kind="stable"):
            track = None if found.track_ids is None else int(found.track_ids[row])
            kept = self._known.get(track) if track is not None else None
            if kept is not None and self._frame - kept[0] < self.spec.every:
                answers[row] = kept[1]
                continue
            if looked >= most or not self._wanted(found, int(row)):
                continue
            looked += 1
            answers[row] = self._named(look(self.level, image, found.boxes[row], margin=self.spec.margin))
            if track is not None:
                self._known[track] = (self._frame, answers[row])
        self._forget()
        return replace(found, second=tuple(answers))

    def close(self) -> None:
        """Give the engine's memory back."""
        self.level.model.close()

    def _named(self, answer: Any) -> Any:
        """Whom an embedding shows, where there is a gallery to tell by; any other answer as it is."""
        return answer if self.gallery is None or answer is None else self.gallery.recognise(answer)

    def _wanted(self, found: Detections, row: int) -> bool:
        if not self.spec.classes:
            return True
        index = int(found.class_ids[row])
        return index < len(found.labels) and found.labels[index] in self.spec.classes

    def _forget(self) -> None:
        old = [track for track, (seen, _) in self._known.items() if self._frame - seen > _FORGET_AFTER_FRAMES]
        for track in old:
            del self._known[track]


@dataclass(frozen=True)
class LooksRunner:
    """Gives objects the embeddings by which a tracker knows them again. Used from one thread.

    At most ``max_objects`` a frame, the best scores first; the others, and those that nothing can be cut out of,
    get a vector of zeros, which is like nothing.
    """

    level: Level
    max_objects: int = 32

    def apply(self, image: Array, found: Detections) -> Detections:
        """``found`` in ``image`` (uint8 BGR or gray) with ``embeddings`` `(N, D)` float32.

        Raises:
            EdgecvError: the engine or the decoder failed.
        """
        vectors = np.zeros((len(found), int(np.prod(self.level.model.subject.outputs[0].shape))), np.float32)
        for row in np.argsort(-found.scores, kind="stable")[: self.max_objects]:
            answer = look(self.level, image, found.boxes[row], margin=1.0)
            if answer is not None:
                vectors[row] = answer.vector
        return replace(found, embeddings=vectors)

    def close(self) -> None:
        """Give the engine's memory back."""
        self.level.model.close()


def look(level: Level, image: Array, box: Array, *, margin: float | None = None) -> Any:
    """The model's answer for the object in ``box``, in the picture's pixels; None where nothing can be cut out.

    The box is widened to the shape of the model's input first, and made ``margin`` times as long (None: by a
    quarter), but for families whose networks are trained on boxes as they are (None: no margin).

    Raises:
        EdgecvError: the engine or the decoder failed.
    """
    subject = level.model.subject
    height, width = subject.contract.size
    tight = FAMILY_KINDS[level.model.manifest.family.kind].tight
    usual = 1.0 if tight else CROP_MARGIN
    part = crop(image, box, margin=usual if margin is None else margin, aspect=None if tight else width / height)
    if part is None:
        return None
    return part.to_picture(ask(level, part.image))


def ask(level: Level, image: Array) -> Any:
    """The model's answer for a part of a picture, in the part's pixels.

    Raises:
        EdgecvError: the engine or the decoder failed.
    """
    subject = level.model.subject
    outputs = subject.run(image, level.slots[0][0])
    return subject.decode(outputs, picture=(image.shape[0], image.shape[1]))


def check_classes(spec: SecondStage, labels: tuple[str, ...]) -> None:
    """Hold the wanted classes against the detector's labels.

    Raises:
        UsageError: the detector has no such class.
    """
    unknown = [name for name in spec.classes if name not in labels]
    if unknown:
        known = ", ".join(labels)
        raise UsageError(f"the second stage wants {unknown[0]!r}, which the detector does not know: {known}")


def open_second(spec: SecondStage, labels: tuple[str, ...], *, threads: int | None) -> SecondRunner:
    """Load the second stage behind a detector of these ``labels``, and warm it up.

    Raises:
        UsageError: it wants a class that the detector does not know, or its gallery is not of this model.
        EdgecvError: the artifact cannot be loaded or does not run.
    """
    check_classes(spec, labels)
    (level,) = load_levels((spec.artifact,), threads=threads, score=None)
    if level.window is not None:
        level.model.close()
        raise UsageError(f"{spec.artifact} takes clips; a second stage looks at one picture of each object")
    try:
        gallery = open_gallery(spec.gallery, level.model) if spec.gallery else None
        level.warm_up()
    except BaseException:
        level.model.close()
        raise
    return SecondRunner(level, spec, gallery)


def open_looks(folder: str, *, threads: int | None) -> LooksRunner:
    """Load the model that tells a tracker who is who, and warm it up.

    Raises:
        UsageError: it is of another family than embedding.
        EdgecvError: the artifact cannot be loaded or does not run.
    """
    (level,) = load_levels((folder,), threads=threads, score=None)
    if level.kind != "embedding":
        level.model.close()
        raise UsageError(f"{folder} is a model for {level.kind}; reid needs one for embedding")
    level.warm_up()
    return LooksRunner(level)
