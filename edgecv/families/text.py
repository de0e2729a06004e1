"""Text: one line of print, a word or a licence plate, read from a picture of it (recognition by CTC)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecv.core.contract import InputContract
from edgecv.core.figures import AccuracyFigures
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import FloatArray, TensorSpec
from edgecv.errors import DataError, ModelError, UsageError
from edgecv.families.classification import wilson
from edgecv.families.graph_heads import output_layers
from edgecv.vision.draw import put_text
from edgecv.vision.image import Image

KIND = "text"
HEAD_NAMES: tuple[str, ...] = ("ctc",)
METRICS: tuple[str, ...] = ("exact", "similarity")
SPACE = "<space>"
"""The label that stands for a space, which a list of labels cannot hold by itself."""
_OPTIONS = {"blank": ("first", "last"), "layout": ("CT", "TC")}
_INK = (96, 64, 16)


@dataclass(frozen=True)
class Text:
    """What stands in a picture: ``scores`` (0..1) has one for each symbol, ``score`` is their mean (0 for no text)."""

    text: str
    score: float
    scores: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "text": self.text,
            "score": round(self.score, 5),
            "scores": [round(score, 5) for score in self.scores],
        }

    def words(self) -> str:
        """The text in quotes, with its score."""
        return f'"{self.text}" {self.score:.3f}'

    def brief(self) -> str:
        """The text alone."""
        return self.text

    def draw(self, image: Image, scale: float) -> None:
        """Write the text and its score into the top left corner of ``image``."""
        put_text(image, f"{self.text} {self.score:.2f}", (6, round(26 * scale) + 4), scale, _INK)


def problems(spec: FamilySpec, outputs: Sequence[TensorSpec]) -> list[str]:
    """Why outputs of this shape are no rows of symbol scores, or the labels no symbols, in words; empty when all fits.

    Allowed is one output (1, C, T), (1, T, C) or (T, 1, C), with further axes of length 1 left out: T places along
    the line and C scores at each, where C is the number of labels plus 1 for the blank. Where C is the number of
    labels, the blank is one of them. ``options.blank`` says which it is: ``first`` or ``last``.
    """
    found = _spec_problems(spec)
    if found:
        return found
    axes = _axes(outputs[0].shape, spec) if len(outputs) == 1 else None
    if axes is None:
        return [_misfit([output.shape for output in outputs], spec)]
    return _label_problems(spec, outputs[0].shape[axes[1]])


def decode(
    outputs: Sequence[FloatArray],
    spec: FamilySpec,
    contract: InputContract,
    *,
    picture: tuple[int, int] | None = None,
) -> Text:
    """The best symbol at each place; the same one again without a blank between counts once, blanks not at all.

    Greedy decoding of Graves et al., "Connectionist Temporal Classification", ICML 2006. A symbol's score is the
    highest of its probabilities along its run.

    Raises:
        ModelError: the output has another shape, or holds NaN or infinity.
    """
    table = scores_table(outputs, spec)
    symbols, blank = symbols_of(spec, table.shape[1])
    best = table.argmax(axis=1)
    likely = table[np.arange(len(best)), best]
    starts = np.flatnonzero(np.diff(best, prepend=-1))
    peaks = np.maximum.reduceat(likely, starts)
    kept = [(symbols[best[start]], float(peak)) for start, peak in zip(starts, peaks, strict=True)
            if best[start] != blank]  # fmt: skip
    scores = tuple(score for _, score in kept)
    return Text("".join(symbol for symbol, _ in kept), float(np.mean(scores)) if scores else 0.0, scores)


def agree(one: Text, other: Text) -> bool:
    """Whether both read the same."""
    return one.text == other.text


def metric(spec: FamilySpec, name: str) -> "Reading":
    """How well text is read: ``exact`` or ``similarity``.

    Raises:
        UsageError: there is no such metric.
    """
    if name not in METRICS:
        raise UsageError(f"text has no metric {name!r}; allowed: {', '.join(METRICS)}")
    return Reading(name)


class Reading:
    """``exact`` is the share of pictures that are read without a fault. ``similarity`` is 1 minus the edit distance

    over the length of the longer text, mean over pictures (1-NED of the ICDAR 2019 challenges). Upper and lower
    case count as different.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._exact: list[float] = []
        self._similarity: list[float] = []
        self._edits = 0
        self._letters = 0

    def update(self, result: Text, truth: Any) -> None:
        """Add one picture; ``truth`` is its text.

        Raises:
            DataError: ``truth`` is no text.
        """
        if not isinstance(truth, str):
            raise DataError(f"the true text is {truth!r}; a string is needed. Take data of kind text")
        edits = edit_distance(result.text, truth)
        self._exact.append(float(edits == 0))
        self._similarity.append(1.0 - edits / max(len(result.text), len(truth), 1))
        self._edits += edits
        self._letters += len(truth)

    def compute(self) -> AccuracyFigures:
        """The metric, ``exact`` with its Wilson interval; ``per_sample`` is each picture's, 0 to 1.

        ``extras``: the other metric, and ``cer``, the character error rate: wrong, missing and added letters over
        those that are there (0 is best, and more than 1 is possible).

        Raises:
            DataError: there was no picture.
        """
        if not self._exact:
            raise DataError("there is no picture to read; give an evaluation set with at least one")
        both = {"exact": self._exact, "similarity": self._similarity}
        values = both[self._name]
        extras = {name: float(np.mean(given)) for name, given in both.items() if name != self._name}
        extras["cer"] = self._edits / max(self._letters, 1)
        interval = wilson(round(sum(values)), len(values)) if self._name == "exact" else None
        return AccuracyFigures(
            self._name, float(np.mean(values)), len(values), interval, extras=extras, per_sample=tuple(values)
        )


def loss(outputs: Any, truths: Any, spec: FamilySpec, *, label_smoothing: float) -> Any:
    """CTC loss of torch ``outputs`` against the ``truths``, a list of strings: per letter, mean over pictures.

    A text that is too long for the network's places counts nothing.

    Raises:
        ModelError: label smoothing is asked for, or the outputs have another shape.
        DataError: a text has a letter that is no label.
    """
    import torch
    import torch.nn.functional as functional

    if label_smoothing:
        raise ModelError(f"label_smoothing is {label_smoothing}; text is trained by CTC, which takes 0 only")
    rows = _torch_rows(outputs, spec, len(truths))
    symbols, blank = symbols_of(spec, rows.shape[2])
    numbers = {symbol: index for index, symbol in enumerate(symbols) if index != blank}
    letters = [[_number(letter, numbers, truth) for letter in truth] for truth in truths]
    lengths = torch.tensor([len(line) for line in letters])
    targets = torch.tensor([number for line in letters for number in line], dtype=torch.long)
    places = torch.full((len(letters),), rows.shape[0], dtype=torch.long)
    logs = rows.clamp_min(1e-12).log() if spec.outputs == "probabilities" else functional.log_softmax(rows, dim=2)
    return functional.ctc_loss(logs, targets.to(logs.device), places, lengths, blank=blank, zero_infinity=True)


def protected(module: Any) -> list[str]:
    """Names of the layers of a torch ``module`` that make the symbols' scores.

    Raises:
        ModelError: the module has neither Linear nor Conv2d.
    """
    return output_layers(module, kind="text")


def scores_table(outputs: Sequence[FloatArray], spec: FamilySpec) -> FloatArray:
    """The probabilities `(T, C)` at each place along the line.

    Raises:
        ModelError: the output has another shape, or holds NaN or infinity.
    """
    axes = _axes(outputs[0].shape, spec) if len(outputs) == 1 else None
    if axes is None:
        raise ModelError(f"the model gave {_misfit([output.shape for output in outputs], spec)}")
    values = np.asarray(outputs[0], dtype=np.float32)
    table = values.transpose([*axes, *(axis for axis in range(values.ndim) if axis not in axes)])
    table = table.reshape(table.shape[:2])
    if not np.isfinite(table).all():
        raise ModelError("the scores hold NaN or infinity: a layer overflows. Check the weights and the normalisation.")
    if spec.outputs == "probabilities":
        return table
    powers = np.exp(table - table.max(axis=1, keepdims=True))
    shares: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return shares


def symbols_of(spec: FamilySpec, classes: int) -> tuple[tuple[str, ...], int]:
    """The symbol of each of ``classes`` scores ("" for the blank), and the blank's number."""
    symbols = [" " if label == SPACE else label for label in spec.labels]
    blank = 0 if spec.options.get("blank", "last") == "first" else classes - 1
    if classes == len(symbols):
        symbols.pop(blank)
    symbols.insert(blank, "")
    return tuple(symbols), blank


def edit_distance(one: str, other: str) -> int:
    """How many letters must be changed, added or taken away (Levenshtein, 1966)."""
    row = list(range(len(other) + 1))
    for line, letter in enumerate(one, start=1):
        before, row[0] = row[0], line
        for column, wanted in enumerate(other, start=1):
            before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, before + (letter != wanted))
    return row[-1]


def _spec_problems(spec: FamilySpec) -> list[str]:
    found = []
    if spec.head not in ("", *HEAD_NAMES):
        found.append(f"head is {spec.head!r}; text has {', '.join(HEAD_NAMES)}")
    for name, value in spec.options.items():
        allowed = _OPTIONS.get(name)
        if allowed is None:
            found.append(f"family.options.{name} is no option of text; there are {' and '.join(_OPTIONS)}")
        elif value not in allowed:
            found.append(f"family.options.{name} is {value!r}; allowed are {' and '.join(allowed)}")
    if spec.background:
        found.append("family.background is true; text has family.options.blank: first for that")
    return found


def _label_problems(spec: FamilySpec, classes: int) -> list[str]:
    # The blank is never written, so a label for it may have any length.
    symbols, blank = symbols_of(spec, classes)
    written = symbols[:blank] + symbols[blank + 1 :]
    long = next((label for label in written if len(label) != 1), None)
    twice = next((label for label, count in Counter(written).items() if count > 1), None)
    found = []
    if long is not None:
        found.append(f"the label {long!r} has {len(long)} letters; a label of text is one letter, or {SPACE}")
    if twice is not None:
        found.append(f"the label {twice!r} is there more than once")
    return found


def _axes(shape: Sequence[int], spec: FamilySpec) -> tuple[int, int] | None:
    """Which axes are the places and the scores; None where the shape does not fit, or fits both ways."""
    wide = [axis for axis, length in enumerate(shape) if length > 1]
    if len(wide) != 2 or 1 not in shape[:2]:
        return None
    fits = _score_axes(wide, shape, spec)
    return ((wide[0] if fits[0] == wide[1] else wide[1]), fits[0]) if len(fits) == 1 else None


def _score_axes(wide: Sequence[int], shape: Sequence[int], spec: FamilySpec) -> list[int]:
    """Those of the two axes ``wide`` that can be the scores."""
    layout = spec.options.get("layout")
    asked = {"CT": [wide[0]], "TC": [wide[1]]}.get(str(layout), wide)
    return [axis for axis in asked if shape[axis] in (len(spec.labels), len(spec.labels) + 1)]


def _misfit(shapes: Sequence[Sequence[int]], spec: FamilySpec) -> str:
    count = len(spec.labels)
    given = ", ".join(str(tuple(shape)) for shape in shapes)
    return (
        f"outputs of shape {given}; text needs one (1, C, T), (1, T, C) or (T, 1, C) with C = {count + 1} for {count} "
        f"labels and the blank, or C = {count} where the blank is among them. Where T is one of these too, "
        "family.options.layout says which comes first: CT or TC"
    )


def _torch_rows(outputs: Any, spec: FamilySpec, pictures: int) -> Any:
    """Torch outputs of a batch as `(T, N, C)` float32."""
    values = (outputs[0] if isinstance(outputs, (tuple, list)) else outputs).float()
    shape = tuple(values.shape)
    wide = [axis for axis in range(1, len(shape)) if shape[axis] > 1]
    fits = _score_axes(wide, shape, spec) if len(wide) == 2 else []
    if len(fits) != 1 or shape[0] != pictures:
        raise ModelError(
            f"the model gave {_misfit([shape], spec)}. A batch of {pictures} pictures comes first in training"
        )
    values = values.reshape(pictures, shape[wide[0]], shape[wide[1]])
    return values.permute(2, 0, 1) if fits[0] == wide[0] else values.permute(1, 0, 2)


def _number(letter: str, numbers: dict[str, int], truth: str) -> int:
    try:
        return numbers[letter]
    except KeyError:
        raise DataError(
            f"the text {truth!r} has {letter!r}, which is no label; add it, or leave the text out"
        ) from None
