"""A network that streams as an engine of one frame: its state stays here between two runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecv.core.figures import Delegation
from edgecv.core.protocols import Engine
from edgecv.core.state import split_state
from edgecv.core.tensor import Array, TensorSpec


class StreamEngine:
    """The `Engine` ``engine`` of a network that streams, with its state: each run takes a frame and gives its answers.

    A run sees the frames of the runs before it, back to the last `reset`. What the engine gave as the state is what it
    gets the next time, the very same arrays; only where a file's scales differ between the two, values are moved from
    one to the other. ``inputs`` and ``outputs`` are all tensors as the manifest describes them.
    """

    def __init__(self, engine: Engine, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self.outputs, self._before, self._after = split_state(inputs, outputs)
        self.inputs = (inputs[0],)
        self._engine = engine
        self._same = [
            (one.dtype, one.quantization) == (other.dtype, other.quantization)
            for one, other in zip(self._before, self._after, strict=True)
        ]
        self._state: list[Array] = []
        self.reset()

    def reset(self) -> None:
        """Forget what was seen: the state becomes zeros."""
        self._state = [spec.quantize(np.zeros(spec.shape, dtype=np.float32)) for spec in self._before]

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """See `edgecv.core.protocols.Engine.run`. Where it fails, the state stays what it was."""
        return self.step(arrays, times=1)

    def step(self, arrays: Sequence[Array], *, times: int) -> list[Array]:
        """The answers for a frame that counts as so many frames of the network's rate.

        With 0 it does not count: it is answered, and the next frame sees the same past.

        Raises:
            EdgecvError: an array does not fit, or the engine failed.
        """
        for number in range(max(1, times)):
            made = self._engine.run([*arrays, *self._state])
            if number < times:
                self._state = self._next(made[len(self.outputs) :])
        return made[: len(self.outputs)]

    def _next(self, found: Sequence[Array]) -> list[Array]:
        """What came out as the state, as it goes in."""
        rows = zip(found, self._before, self._after, self._same, strict=True)
        return [array if same else one.quantize(other.dequantize(array)) for array, one, other, same in rows]

    def delegation(self) -> Delegation | None:
        """See `edgecv.core.protocols.Engine.delegation`."""
        return self._engine.delegation()

    def close(self) -> None:
        """See `edgecv.core.protocols.Engine.close`."""
        self._engine.close()
