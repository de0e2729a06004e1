"""Times on the engine of a target of this machine: of single layers and of whole networks."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from edgecv import backends
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import CompileSource, Engine
from edgecv.core.target import Target
from edgecv.measure.host import machine_facts
from edgecv.optimize.export import export_program, save_program, write_onnx
from edgecv.optimize.latency_nets import TinyNet, network_of, surroundings_of
from edgecv.optimize.prune_layers import LayerShape

__all__ = ["EngineProbe", "interleaved_ms"]

_BATCH = 24
"""So many engines are held in memory and timed in turn."""
_LAYER_ROUNDS = 40
_NETWORK_ROUNDS = 300
_WARM_RUNS = 5
_TURN_S = 4e-4
"""An engine's turn lasts about so long, at least three runs: the first of them finds cold caches."""
_LEAST_MS = 1e-4

Write = Callable[[Path], CompileSource]


@dataclass(frozen=True)
class EngineProbe:
    """Takes times on the engine of ``target``; third-party output goes to the end of ``log``.

    Implements `edgecv.optimize.latency_table.Meter`.
    """

    target: Target
    log: Path | None = None
    progress: Progress = field(default_factory=SilentProgress)

    def environment(self) -> dict[str, Any]:
        """All that a layer's time depends on besides its shape, as plain values."""
        version = backends.get(self.target.backend).version()
        facts = asdict(machine_facts({self.target.backend: version}))
        facts.pop("python")
        return {"machine": facts, "threads": self.target.threads, "options": self.target.engine_options}

    def layers_ms(self, shapes: Sequence[LayerShape]) -> dict[LayerShape, float]:
        """Milliseconds of each layer within a network, batch 1, float: medians of runs taken in turn.

        Raises:
            ToolchainError: the engine refuses a layer.
        """
        ordered = sorted(set(shapes), key=lambda shape: (shape.size, shape.inputs, shape.text))
        found: dict[LayerShape, float] = {}
        with self.progress.task(f"time layers on {self.target.name}", len(ordered)) as task:
            for start in range(0, len(ordered), _BATCH):
                batch = ordered[start : start + _BATCH]
                found.update(self._batch_ms(batch))
                task.advance(len(batch))
        return found

    def networks_ms(self, modules: Sequence[nn.Module], example: torch.Tensor) -> list[float]:
        """Median milliseconds of each whole network's engine call at batch 1, float, taken in turn.

        Raises:
            ModelError: a network cannot be exported.
            ToolchainError: the engine refuses one.
        """

        def writer(module: nn.Module) -> Write:
            return lambda folder: _source(module, example, folder, log=self.log)

        return self._timed([writer(module) for module in modules], _NETWORK_ROUNDS)

    def _batch_ms(self, shapes: Sequence[LayerShape]) -> dict[LayerShape, float]:
        program = self.target.backend == "litert"
        around = {shape: surroundings_of(shape) for shape in shapes}
        nets = [*(network_of(shape) for shape in shapes), *dict.fromkeys(around.values())]

        def writer(net: TinyNet) -> Write:
            return lambda folder: net.source(folder, program=program)

        times = self._timed([writer(net) for net in nets], _LAYER_ROUNDS)
        known = dict(zip(nets, times, strict=True))
        return {shape: max(_LEAST_MS, known[network_of(shape)] - known[around[shape]]) for shape in shapes}

    def _timed(self, writers: Sequence[Write], rounds: int) -> list[float]:
        backend = backends.get(self.target.backend)
        engines: list[Engine] = []
        with TemporaryDirectory() as name:
            log = self.log or Path(name) / "log"
            try:
                for index, write in enumerate(writers):
                    folder = Path(name) / str(index)
                    out = folder / "out"
                    out.mkdir(parents=True)
                    made = backend.compile(write(folder), target=self.target, out=out, log=log)
                    engines.append(backend.load(out / made.model, options=made.options, threads=self.target.threads))
                return interleaved_ms(engines, rounds=rounds)
            finally:
                for engine in engines:
                    engine.close()


def interleaved_ms(engines: Sequence[Engine], *, rounds: int) -> list[float]:
    """Median milliseconds of one run of each engine on random inputs.

    The engines take turns, ``rounds`` each, so that what else the machine does falls on all of them. Of each
    turn the median counts, without its first run.
    """
    random = np.random.default_rng(0)
    feeds = [
        [np.asarray(random.normal(size=spec.shape), dtype=spec.dtype) for spec in engine.inputs] for engine in engines
    ]
    runs = []
    for engine, feed in zip(engines, feeds, strict=True):
        warm = [_run_s(engine, feed) for _ in range(_WARM_RUNS)]
        runs.append(min(40, max(3, math.ceil(_TURN_S / max(median(warm), 1e-7)))))
    times: list[list[float]] = [[] for _ in engines]
    with _no_collection():
        for _ in range(rounds):
            for index, engine in enumerate(engines):
                turn = [_run_s(engine, feeds[index]) for _ in range(runs[index] + 1)]
                times[index].append(median(turn[1:]))
    return [median(found) * 1000.0 for found in times]


def _run_s(engine: Engine, feed: list[Any]) -> float:
    started_s = time.perf_counter()
    engine.run(feed)
    return time.perf_counter() - started_s


def _source(module: nn.Module, example: torch.Tensor, folder: Path, *, log: Path | None) -> CompileSource:
    program = export_program(module, example)
    save_program(program, folder / "program.pt2")
    write_onnx(program, folder / "model.onnx", log=log)
    return CompileSource("fp32", folder / "model.onnx", folder / "program.pt2")


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python's garbage collector would add its own pauses to some of the runs."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
