"""What each layer costs when it alone is int8: signal to noise, task metric, and its share of the time.

One Q/DQ graph serves all rows: the rounding of everything else is switched off, nothing is calibrated anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgecv.core.kinds import metric_loss
from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.sensitivity import Sensitivity, SensitivityRow
from edgecv.optimize.examples import Example
from edgecv.optimize.picks import remembered, repeated
from edgecv.optimize.ptq import Prepared
from edgecv.optimize.switches import Board, make_board

__all__ = ["Score", "Sensitivity", "SensitivityRow", "output_sqnr_db", "sensitivity"]

Score = Callable[[nn.Module], float]
"""The task metric of a module on pictures of the caller's choice; higher is better."""


def sensitivity(
    prepared: Prepared,
    pictures: Iterable[Example],
    *,
    score: Score | None = None,
    metric: str = "",
    latency_ms: Mapping[str, float] | None = None,
    weights_only: bool = False,
    progress: Progress | None = None,
) -> Sensitivity:
    """Measure every layer of ``prepared`` on ``pictures`` `(1, C, H, W)` float32, read once and one at a time.

    ``score`` is called once a row, and once each for the float and the int8 network. ``latency_ms`` has
    milliseconds by layer or node name; names it lacks have no time. ``weights_only`` rounds no activation.
    """
    board = make_board(prepared.graph, prepared.originals)
    subjects = _subjects(board)
    if weights_only:
        known = [(name, kind, tuple(key for key in keys if key in board.constants)) for name, kind, keys in subjects]
        subjects = [item for item in known if item[2]]
    everything = (*board.switches, *board.constants)
    noise = _noise(board, [keys for _, _, keys in subjects] + [everything], pictures)
    report = progress or SilentProgress()
    plain = None if score is None else _scored(board, (), score)
    whole = None if score is None else _scored(board, everything, score)
    times = {name: _time_of(name, keys, latency_ms or {}) for name, _, keys in subjects}
    total = sum(time for time in times.values() if time is not None)
    rows = []
    with report.task("sensitivity", len(subjects)) as task:
        for (name, kind, keys), decibels in zip(subjects, noise.decibels[:-1], strict=True):
            drop = None if score is None or plain is None else metric_loss(metric, plain, _scored(board, keys, score))
            time = times[name]
            share = None if time is None or total == 0 else time / total
            rows.append(SensitivityRow(name, kind, keys, decibels, drop, time, share))
            task.advance()
    board.turn(None)
    rows.sort(key=lambda row: (row.sqnr_db, row.layer))
    return Sensitivity(tuple(rows), noise.pictures, noise.decibels[-1], metric, plain, whole)


def output_sqnr_db(board: Board, pictures: Iterable[Example]) -> float:
    """Signal to noise of the int8 network's outputs against the float network's, in dB; of several the worst."""
    return _noise(board, [(*board.switches, *board.constants)], pictures).decibels[0]


@dataclass(frozen=True)
class _Noise:
    decibels: tuple[float, ...]
    pictures: int


def _subjects(board: Board) -> list[tuple[str, str, tuple[str, ...]]]:
    """`(name, operator, switches)` of every row: layers, then the activations that no layer reads or makes."""
    found = []
    used: set[str] = set()
    for layer in board.layers:
        keys = tuple(dict.fromkeys(key for key in (layer.input, layer.weight, layer.output) if key))
        used.update(keys)
        kind = getattr(layer.target, "__name__", "").split(".")[0]
        found.append((layer.name, kind, keys))
    found += [(key, "activation", (key,)) for key in board.switches if key not in used]
    return found


def _noise(board: Board, groups: list[tuple[str, ...]], pictures: Iterable[Example]) -> _Noise:
    signal: Tensor | None = None
    errors: list[Tensor] = []
    count = 0
    for picture in pictures:
        board.turn(())
        with remembered() as rows:
            wanted = board.run(picture)
        power = torch.stack([item.double().square().sum() for item in wanted])
        signal = power if signal is None else signal + power
        errors = errors or [torch.zeros(len(wanted), dtype=torch.float64) for _ in groups]
        for index, keys in enumerate(groups):
            board.turn(keys)
            with repeated(rows):
                found = zip(wanted, board.run(picture), strict=True)
            errors[index] += torch.stack([(one.double() - other.double()).square().sum() for one, other in found])
        count += 1
    board.turn(None)
    if signal is None:
        return _Noise(tuple(math.inf for _ in groups), 0)
    return _Noise(tuple(_decibels(signal, error) for error in errors), count)


def _decibels(signal: Tensor, error: Tensor) -> float:
    ratios = [float(one / other) if other > 0 else math.inf for one, other in zip(signal, error, strict=True)]
    worst = min(ratios)
    return 10 * math.log10(worst) if 0 < worst < math.inf else worst if worst > 0 else -math.inf


def _scored(board: Board, keys: Iterable[str], score: Score) -> float:
    board.turn(tuple(keys))
    with torch.no_grad():
        return float(score(board.module))


def _time_of(name: str, keys: tuple[str, ...], latency_ms: Mapping[str, float]) -> float | None:
    for candidate in (name, *keys):
        if candidate in latency_ms:
            return float(latency_ms[candidate])
    return None
