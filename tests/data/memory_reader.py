"""A reader over pictures in memory: a small, real implementation of the protocol, without ``truths``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from edgecv.core.protocols import Sample
from edgecv.core.tensor import Array


class MemoryReader:
    """Pictures and, if they matter, their classes (0 otherwise)."""

    skipped: Mapping[str, str] = {}

    def __init__(self, images: Sequence[Array], classes: Sequence[int] | None = None) -> None:
        self.images = list(images)
        self.classes = [0] * len(self.images) if classes is None else list(classes)
        self.ids: Sequence[str] = [f"{index}" for index in range(len(self.images))]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(id=self.ids[index], image=self.images[index], truth=self.classes[index])

    def sha256(self, index: int) -> str:
        return hashlib.sha256(self.images[index].tobytes()).hexdigest()

    def fingerprint(self) -> str:
        return hashlib.sha256("".join(map(self.sha256, range(len(self)))).encode()).hexdigest()
