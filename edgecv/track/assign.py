"""Which track is which detection: the best partial matching, exactly, without a solver library.

Most objects of a frame overlap with one track only. The graph of possible pairs falls apart into small
groups; single pairs are taken as they are, and only real crowds are solved.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
_NONE = np.zeros(0, dtype=np.int64)


def match(worth: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """The matching with the largest sum of ``worth``; each row and column at most once.

    ``worth`` is `(N, M)`; only pairs above 0 are possible, NaN is not. Gives the rows, ascending, and their
    columns, `(K,)` int64 each.
    """
    rows, columns = np.nonzero(worth > 0)
    if not len(rows):
        return _NONE, _NONE
    row_count = np.bincount(rows, minlength=worth.shape[0])
    column_count = np.bincount(columns, minlength=worth.shape[1])
    alone = (row_count[rows] == 1) & (column_count[columns] == 1)
    pairs = list(zip(rows[alone].tolist(), columns[alone].tolist(), strict=True))
    if not alone.all():
        shared = ~alone
        for group_rows, group_columns in _groups(rows[shared].tolist(), columns[shared].tolist()):
            values = worth[np.ix_(group_rows, group_columns)]
            pairs += [(group_rows[i], group_columns[j]) for i, j in _solve(values)]
    pairs.sort()
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _groups(rows: list[int], columns: list[int]) -> list[tuple[list[int], list[int]]]:
    """Connected parts of the graph with an edge for each pair: their rows and columns, ascending."""
    of_row: dict[int, list[int]] = {}
    of_column: dict[int, list[int]] = {}
    for row, column in zip(rows, columns, strict=True):
        of_row.setdefault(row, []).append(column)
        of_column.setdefault(column, []).append(row)
    groups = []
    seen: set[int] = set()
    for start in of_row:
        if start in seen:
            continue
        seen.add(start)
        waiting, group_columns, group_rows = [start], set(), [start]
        while waiting:
            for column in of_row[waiting.pop()]:
                if column in group_columns:
                    continue
                group_columns.add(column)
                for row in of_column[column]:
                    if row not in seen:
                        seen.add(row)
                        group_rows.append(row)
                        waiting.append(row)
        groups.append((sorted(group_rows), sorted(group_columns)))
    return groups


def _solve(worth: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Best pairs above 0 of one group."""
    values = np.where(worth > 0, worth, 0.0)
    if values.shape[0] == 1 or values.shape[1] == 1:
        row, column = divmod(int(values.argmax()), values.shape[1])
        return [(row, column)]
    turned = values.shape[0] > values.shape[1]
    if turned:
        values = values.T
    # A row may stay alone: as many columns of worth 0 are added.
    padded = np.concatenate([values, np.zeros((len(values), len(values)))], axis=1)
    columns = _shortest_paths(padded.max() - padded)
    real = [(row, column) for row, column in enumerate(columns) if column < values.shape[1]]
    chosen = [(row, column) for row, column in real if values[row, column] > 0]
    return [(column, row) for row, column in chosen] if turned else chosen


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
