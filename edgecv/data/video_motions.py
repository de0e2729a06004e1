"""Made-up clips of movements as a data set: drawn when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

import numpy as np

from edgecv.core.contract import Clip
from edgecv.core.recipe import DataSpec
from edgecv.data.video import ClipReader, ClipSource
from edgecv.errors import DataError
from edgecv.vision.image import Image
from edgecv.vision.motions import MOVEMENTS, ROUND_S, Motion, Movement

DEFAULT_SAMPLES = 500
_FIRST = {"train": 0, "test": 1_000_000}


def open_motions(spec: DataSpec, *, labels: Sequence[str], only: frozenset[str] | None = None) -> ClipReader:
    """Clips of the movements in ``labels``, each of a look of its own, as often one as another.

    ``spec.limit`` is the number of clips of each split, 500 where it is not set; ``only`` keeps those with these ids,
    such as ``train-00042``.

    Raises:
        DataError: a label is no movement, or stands twice.
    """
    strange = [label for label in labels if label not in MOVEMENTS]
    if strange or len(set(labels)) != len(labels):
        shown = ", ".join(map(repr, labels))
        raise DataError(f"the labels are {shown}; data of kind {spec.kind} shows {', '.join(MOVEMENTS)}, each once")
    count = DEFAULT_SAMPLES if spec.limit is None else spec.limit
    splits = ("train", "test") if spec.split == "all" else (spec.split,)
    sources = []
    for split in splits:
        for number in range(count):
            name, truth = f"{split}-{number:05d}", number % len(labels)
            if only is None or name in only:
                movement: Movement = labels[truth]  # type: ignore[assignment]
                seed = _FIRST[split] + number
                content = hashlib.sha256(Motion(movement, seed).at(0.0).tobytes() + movement.encode()).hexdigest()
                sources.append(ClipSource(name, truth, content, partial(draw_clip, movement, seed)))
    return ClipReader(sources)


def draw_clip(movement: Movement, seed: int, clip: Clip) -> Image:
    """A clip of one movement, uint8 `(T, 72, 96, 3)` BGR, from a random moment of it.

    Frames come a little early or late, as those of a camera do. Where it fits, the clip lies within one round.
    """
    random = np.random.default_rng([seed, 7])
    start_s = float(random.uniform(0.0, max(0.0, ROUND_S - clip.span_s)))
    late_s = random.uniform(-0.15, 0.15, clip.frames) / clip.fps
    video = Motion(movement, seed)
    return np.stack([video.at(start_s + max(0.0, n / clip.fps + late_s[n])) for n in range(clip.frames)])
