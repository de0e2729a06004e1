"""The state of a network that streams: what comes out goes in, begins with zeros, and moves only where it must."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from edgecv.backends.stream import StreamEngine
from edgecv.core.figures import Delegation
from edgecv.core.tensor import Array, Quantization, TensorSpec
from edgecv.errors import ToolchainError

FRAME = TensorSpec("x", (1, 1), "float32", "NC")
BEFORE = TensorSpec("s", (1, 2), "float32", "NC")
SUM = TensorSpec("y", (1, 1), "float32", "NC")
AFTER = TensorSpec("t", (1, 2), "float32", "NC")


@dataclass
class LastThree:
    """Adds up the last three frames; the state is the two before, held as `inputs` and `outputs` say."""

    inputs: tuple[TensorSpec, ...] = (FRAME, BEFORE)
    outputs: tuple[TensorSpec, ...] = (SUM, AFTER)
    taken: list[Array] = field(default_factory=list)
    given: list[Array] = field(default_factory=list)
    broken: bool = False
    closed: bool = False

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        if self.broken:
            raise ToolchainError("out of order")
        frame, state = arrays
        assert state.dtype == self.inputs[1].dtype
        past = self.inputs[1].dequantize(state)
        self.taken.append(state)
        self.given.append(self.outputs[1].quantize(np.concatenate([past[:, 1:], frame], axis=1)))
        return [frame + past.sum(), self.given[-1]]

    def delegation(self) -> Delegation | None:
        return Delegation(1.0, 2, 2, "layers")

    def close(self) -> None:
        self.closed = True


def frame(value: float) -> list[Array]:
    return [np.array([[value]], dtype=np.float32)]


def stream(engine: LastThree) -> StreamEngine:
    return StreamEngine(engine, engine.inputs, engine.outputs)


def sums(engine: StreamEngine, values: Sequence[float]) -> list[float]:
    return [float(engine.run(frame(value))[0][0, 0]) for value in values]


def test_each_frame_sees_those_before_it_until_it_begins_anew() -> None:
    engine = stream(LastThree())
    assert (engine.inputs, engine.outputs) == ((FRAME,), (SUM,))
    assert sums(engine, [1, 2, 4, 8]) == [1, 3, 7, 14]
    engine.reset()
    assert sums(engine, [1, 2]) == [1, 3]


def test_the_state_is_handed_on_without_a_copy() -> None:
    inner = LastThree()
    sums(stream(inner), [1, 2, 3])
    assert inner.taken[1] is inner.given[0]
    assert inner.taken[2] is inner.given[1]


def test_a_frame_in_between_is_answered_and_forgotten_and_one_may_stand_for_two() -> None:
    engine = stream(LastThree())
    sums(engine, [1, 2])
    assert float(engine.step(frame(100), times=0)[0][0, 0]) == 103
    assert sums(engine, [4]) == [7]
    assert float(engine.step(frame(10), times=2)[0][0, 0]) == 4 + 10 + 10
    assert sums(engine, [1]) == [21]


def test_a_run_that_fails_leaves_the_state_as_it_was() -> None:
    inner = LastThree()
    engine = stream(inner)
    sums(engine, [1, 2])
    inner.broken = True
    with pytest.raises(ToolchainError, match="out of order"):
        engine.run(frame(9))
    inner.broken = False
    assert sums(engine, [4]) == [7]


def test_zero_and_scales_that_differ_are_minded() -> None:
    before = TensorSpec("s", (1, 2), "uint8", "NC", Quantization(0.5, 10))
    after = TensorSpec("t", (1, 2), "int8", "NC", Quantization(0.25, -3))
    inner = LastThree((FRAME, before), (SUM, after))
    assert sums(stream(inner), [1, 2, 4, 8]) == [1, 3, 7, 14]
    assert inner.taken[0].tolist() == [[10, 10]]
    same = LastThree((FRAME, before), (SUM, TensorSpec("t", (1, 2), "uint8", "NC", Quantization(0.5, 10))))
    assert sums(stream(same), [1, 2, 4, 8]) == [1, 3, 7, 14]
    assert same.taken[2] is same.given[1]


def test_it_speaks_for_its_engine() -> None:
    inner = LastThree()
    engine = stream(inner)
    assert engine.delegation() == Delegation(1.0, 2, 2, "layers")
    engine.close()
    assert inner.closed


def test_without_a_state_it_is_the_engine_itself() -> None:
    @dataclass
    class Plain(LastThree):
        def run(self, arrays: Sequence[Array]) -> list[Array]:
            return [arrays[0] * 2]

    engine = StreamEngine(Plain(), (FRAME,), (SUM,))
    assert sums(engine, [1, 2]) == [2, 4]
