"""Which track is which detection: the best partial matching, exactly, without a solver library.

Most objects of a frame overlap with one track only. The graph of possible pairs falls apart into small
groups; single pairs, and pairs worth more than all that stands against them, are taken as they are, and
only real crowds are solved.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_MOST_TRIES = 100
"""Ways to pair up a group that are all tried; above it the solver is faster."""

_NONE: Ints = np.zeros(0, np.int64)
_FEW = 16
"""Pairs that are gone through one by one faster than all at once."""

_ROUNDS = 3
"""How often the sure pairs are taken out once more, before the rest is solved."""


def match(worth: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """The matching with the largest sum of ``worth``; each row and column at most once.

    ``worth`` is `(N, M)`; only pairs above 0 are possible, NaN is not. Gives the rows, ascending, and their
    columns, `(K,)` int64 each.
    """
    flat = np.ascontiguousarray(worth).ravel()
    places = (flat > 0).nonzero()[0]
    rows, columns = np.divmod(places, max(1, worth.shape[1]))
    best = match_pairs(rows, columns, flat[places])
    return rows[best], columns[best]


def match_pairs(rows: Ints, columns: Ints, worth: npt.NDArray[Any]) -> Ints:
    """As `match`, of a list of the possible pairs: ``rows`` (ascending), ``columns`` and ``worth`` (above 0), `(K,)`.

    No pair may be given twice. Gives the places of the best pairs in the list, ascending.
    """
    count = len(rows)
    if count <= _FEW and len(set(rows.tolist())) == count == len(set(columns.tolist())):
        return np.arange(count)  # nothing stands against anything
    chosen, left = _sure(rows, columns, worth)
    for _ in range(_ROUNDS):
        if not len(left):
            return chosen.nonzero()[0]
        sure, open_ = _sure(rows[left], columns[left], worth[left])
        if not sure.any():
            break
        chosen[left[sure]] = True
        left = left[open_]
    for group in _groups(rows[left].tolist(), columns[left].tolist()):
        places = left[group]
        chosen[places[_solve(rows[places].tolist(), columns[places].tolist(), worth[places].tolist())]] = True
    return chosen.nonzero()[0]


def _sure(rows: Ints, columns: Ints, worth: npt.NDArray[Any]) -> tuple[Mask, Ints]:
    """Mask of the pairs that are in every best matching, and the places of those that remain to be decided.

    A pair that is worth more than the best other one of its row and the best other one of its column
    together is in every best matching: putting it in costs at most these two.
    """
    count, first = len(rows), int(rows[-1]) + 1
    lines = np.concatenate([rows, columns + first])  # rows and columns, each with a number of its own
    best, others = _best_two(lines, np.concatenate([worth, worth]))
    sure: Mask = worth > others[:count] + others[count:]
    used = np.count_nonzero(best[:first])
    if np.count_nonzero(sure) == min(used, np.count_nonzero(best) - used):
        return sure, _NONE
    done = np.zeros(len(best), dtype=bool)
    done[lines[:count][sure]] = True
    done[lines[count:][sure]] = True
    settled = done[lines]
    return sure, (~(settled[:count] | settled[count:])).nonzero()[0]


def _best_two(lines: Ints, worth: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The highest worth on each line, and for each pair that of the other pairs on its line; 0 without any."""
    best, second = np.zeros((2, int(lines.max()) + 1))
    np.maximum.at(best, lines, worth)
    highest = best[lines]
    is_best = worth == highest
    np.maximum.at(second, lines, np.where(is_best, 0.0, worth))
    if np.count_nonzero(is_best) > np.count_nonzero(best):  # somewhere two share the first place
        second = np.where(np.bincount(lines, is_best) > 1, best, second)
    return best, np.where(is_best, second[lines], highest)


def _groups(rows: list[int], columns: list[int]) -> list[list[int]]:
    """Connected parts of the graph with an edge for each pair: the places of their pairs, ascending."""
    of_row: dict[int, list[int]] = {}
    of_column: dict[int, list[int]] = {}
    for place, (row, column) in enumerate(zip(rows, columns, strict=True)):
        of_row.setdefault(row, []).append(place)
        of_column.setdefault(column, []).append(place)
    groups = []
    seen: set[int] = set()
    known_columns: set[int] = set()
    for start in of_row:
        if start in seen:
            continue
        seen.add(start)
        waiting, group = [start], []
        while waiting:
            places = of_row[waiting.pop()]
            group += places
            for place in places:
                if columns[place] in known_columns:
                    continue
                known_columns.add(columns[place])
                for other in of_column[columns[place]]:
                    if rows[other] not in seen:
                        seen.add(rows[other])
                        waiting.append(rows[other])
        groups.append(sorted(group))
    return groups


def _solve(rows: list[int], columns: list[int], worth: list[float]) -> list[int]:
    """The places of the best pairs of one group."""
    if len(set(rows)) > len(set(columns)):
        rows, columns = columns, rows
    of_row: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        of_row.setdefault(row, []).append(place)
    tries = 1
    for places in of_row.values():
        tries *= len(places) + 1
        if tries > _MOST_TRIES:
            return _solve_large(list(of_row.values()), columns, worth)
    return _try_all(list(of_row.values()), columns, worth, 0, frozenset())[1]


def _try_all(
    choices: list[list[int]], columns: list[int], worth: list[float], first: int, taken: frozenset[int]
) -> tuple[float, list[int]]:
    """The best sum and pairs of the rows from ``first`` on without the columns ``taken``."""
    if first == len(choices):
        return 0.0, []
    best, pairs = _try_all(choices, columns, worth, first + 1, taken)
    for place in choices[first]:
        if columns[place] not in taken:
            rest, others = _try_all(choices, columns, worth, first + 1, taken | {columns[place]})
            if worth[place] + rest > best:
                best, pairs = worth[place] + rest, [place, *others]
    return best, pairs


def _solve_large(choices: list[list[int]], columns: list[int], worth: list[float]) -> list[int]:
    """As `_try_all`, by the solver: ``choices`` are the places of each row's pairs."""
    index = {column: number for number, column in enumerate(sorted(set(columns)))}
    # A row may stay alone: as many columns of worth 0 are added.
    values = np.zeros((len(choices), len(index) + len(choices)))
    place_of: dict[tuple[int, int], int] = {}
    for row, places in enumerate(choices):
        for place in places:
            values[row, index[columns[place]]] = worth[place]
            place_of[row, index[columns[place]]] = place
    found = _shortest_paths(values.max() - values)
    return [place_of[row, column] for row, column in enumerate(found) if (row, column) in place_of]


def _shortest_paths(cost: npt.NDArray[np.float64]) -> list[int]:
    """A column for every row at the lowest sum of ``cost`` `(N, M)`, N <= M: successive shortest augmenting paths.

    R. Jonker and A. Volgenant, Computing 38, 1987 (the augmentation of their algorithm).
    """
    count, width = cost.shape
    row_price, column_price = np.zeros(count), np.zeros(width)
    row_of, column_of = np.full(width, -1), np.full(count, -1)
    for start in range(count):
        distance, before = np.full(width, np.inf), np.full(width, -1)
        done = np.zeros(width, dtype=bool)
        reached: list[int] = []
        row, base = start, 0.0
        while True:
            through = base + cost[row] - row_price[row] - column_price
            better = ~done & (through < distance)
            distance[better], before[better] = through[better], row
            column = int(np.where(done, np.inf, distance).argmin())
            base = float(distance[column])
            done[column] = True
            if row_of[column] < 0:
                break
            reached.append(column)
            row = int(row_of[column])
        row_price[start] += base
        for seen in reached:
            row_price[row_of[seen]] += base - distance[seen]
            column_price[seen] -= base - distance[seen]
        while True:  # turn the path around
            row = int(before[column])
            row_of[column] = row
            column, column_of[row] = int(column_of[row]), column
            if row == start:
                break
    return [int(column) for column in column_of]
