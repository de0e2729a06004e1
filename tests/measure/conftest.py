"""A small real subject: the null engine behind the classification family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edgecv.core.contract import InputContract
from edgecv.core.protocols import Sample
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import Quantization, TensorSpec
from edgecv.measure.subject import Subject, subject

CONTRACT = InputContract(size=(8, 8))
SPEC = FamilySpec(kind="classification", labels=("red", "green", "blue"))


class ChannelMeans:
    """An engine whose scores are the means of the three input channels; the largest channel wins."""

    def __init__(self, *, quantized: bool = False) -> None:
        scales = Quantization(1 / 255, -128) if quantized else None
        dtype = "int8" if quantized else "float32"
        self.inputs = (TensorSpec("x", (1, 3, 8, 8), dtype, "NCHW", scales),)
        self.outputs = (TensorSpec("y", (1, 3), dtype, "NC", scales),)
        self.runs = 0
        self.before_run = lambda: None

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.runs += 1
        self.before_run()
        real = self.inputs[0].dequantize(arrays[0])
        return [self.outputs[0].quantize(real.mean(axis=(2, 3)))]

    def delegation(self) -> None:
        return None

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Colours:
    """Plain red, green and blue pictures in turn; every seventh is labelled wrong."""

    count: int

    @property
    def ids(self) -> Sequence[str]:
        return [str(index) for index in range(self.count)]

    skipped: Any = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        image = np.full((12, 10, 3), 20, dtype=np.uint8)
        image[:, :, 2 - index % 3] = 200
        truth = (index + (index % 7 == 6)) % 3
        return Sample(str(index), image, truth)

    def sha256(self, index: int) -> str:
        return f"{index:064x}"

    def fingerprint(self) -> str:
        return f"{self.count:064x}"


@pytest.fixture
def engine() -> ChannelMeans:
    return ChannelMeans()


@pytest.fixture
def colours() -> Colours:
    return Colours(30)


@pytest.fixture
def classifier(engine: ChannelMeans) -> Subject:
    return subject(engine, spec=SPEC, contract=CONTRACT, file_sha256="f" * 64, threads=2)


@pytest.fixture
def int8_classifier() -> Subject:
    return subject(ChannelMeans(quantized=True), spec=SPEC, contract=CONTRACT, file_sha256="e" * 64)
