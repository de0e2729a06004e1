"""Data sets that are drawn when they are asked for: each sample is a function of its name, so nothing is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgecv.core.protocols import Sample
from edgecv.data.files import fingerprint_of, truth_key
from edgecv.vision.image import Image

Drawing = Callable[[str], tuple[Image, Any]]


class DrawnReader:
    """A `Reader` over pictures that ``draw`` makes of their names: uint8 `(H, W, 3)` BGR and their truths.

    ``truths`` are what is known of each sample before it is drawn.

    Safe to use from several threads.
    """

    skipped: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()

    def __init__(self, names: Sequence[str], draw: Drawing, truths: Sequence[Any]) -> None:
        self.ids: Sequence[str] = tuple(names)
        self.truths: Sequence[Any] = tuple(truths)
        self._draw = draw

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Sample ``index``: its picture and its truth."""
        image, truth = self._draw(self.ids[index])
        return Sample(id=self.ids[index], image=image, truth=truth)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def sha256(self, index: int) -> str:
        """Hash of the picture's bytes, row by row."""
        return hashlib.sha256(self._draw(self.ids[index])[0].tobytes()).hexdigest()

    def fingerprint(self) -> str:
        """Hash over the ids, pictures and truths of all samples; draws each once."""
        return fingerprint_of((name, None, self._content(name)) for name in self.ids)

    def _content(self, name: str) -> str:
        image, truth = self._draw(name)
        return hashlib.sha256(image.tobytes() + repr(truth_key(truth)).encode()).hexdigest()
