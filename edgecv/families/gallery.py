"""Whom a picture shows: the nearest of a gallery's pictures, by an exact search over their embeddings."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecv.core.results import Classification, Embedding
from edgecv.core.tensor import FloatArray
from edgecv.errors import ArtifactError, DataError, UsageError

FORM = "edgecv-gallery-1"
NEIGHBOURS = 5
"""So many of the nearest pictures vote for an identity where nothing else is asked for."""
UNKNOWN = "unknown"
"""The name of somebody who is like none of a gallery's pictures."""
STRANGERS = 0.01
"""Of strangers, so many are taken for somebody known at the limit of `Gallery.stranger_limit`."""
_UNIT = 1e-3
_ROUNDING = 1e-6
"""Cosines of the same two pictures differ by less."""
_MOST_STRANGERS = 2000
"""Pictures that stand for strangers, evenly spaced."""


@dataclass(frozen=True)
class Gallery:
    """Embeddings of known identities: ``vectors`` `(N, D)` float32 of length 1, ``numbers`` `(N,)` into ``names``.

    ``model`` is the hash of the model file that made them: another one's vectors cannot be compared with these. A
    search looks at every vector: a million multiply-adds for 2,000 pictures of 512 numbers, so that some 100,000 of
    them (200 MB) take about 13 ms on one core of a desktop; below that an approximate index is not needed.

    A picture whose nearest cosine is below ``least`` shows somebody `UNKNOWN`; with -1, the default, nobody is.
    """

    vectors: FloatArray
    numbers: npt.NDArray[np.int64]
    names: tuple[str, ...]
    model: str
    least: float = -1.0

    def __post_init__(self) -> None:
        vectors, numbers = self.vectors, self.numbers
        if vectors.ndim != 2 or numbers.shape != (len(vectors),) or not len(vectors):
            raise DataError(
                f"a gallery has vectors {vectors.shape} and numbers {numbers.shape}; (N, D) and (N,) are needed"
            )
        if not np.allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1.0, atol=_UNIT):
            raise DataError("a gallery's vectors must have length 1; divide each by its own")
        if numbers.min() < 0 or numbers.max() >= len(self.names):
            raise DataError(
                f"a gallery's numbers are {numbers.min()} to {numbers.max()}; it has {len(self.names)} names, from 0"
            )
        if not -1 <= self.least <= 1:
            raise DataError(f"a gallery's least cosine is {self.least}; -1 to 1 is allowed")

    def nearest(self, looked: Embedding, *, count: int = NEIGHBOURS) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """Rows and cosines of the ``count`` nearest pictures (all where there are fewer), nearest first.

        Raises:
            UsageError: the embedding has another length, or ``count`` is below 1.
        """
        if looked.vector.shape != self.vectors.shape[1:] or count < 1:
            raise UsageError(
                f"the embedding has {len(looked.vector)} numbers and {count} neighbours are asked for; the gallery has "
                f"{self.vectors.shape[1]} numbers a picture, and 1 or more neighbours are allowed"
            )
        cosines = self.vectors @ looked.vector
        count = min(count, len(cosines))
        rows = np.argpartition(-cosines, count - 1)[:count]
        rows = rows[np.lexsort((rows, -cosines[rows]))]
        return rows.astype(np.int64), cosines[rows]

    def recognise(self, looked: Embedding, *, count: int = NEIGHBOURS) -> Classification:
        """Whom the nearest pictures show: the identity with the most of them first, of equals the nearest.

        Scores are each identity's largest cosine among the ``count`` neighbours, 0 where it has none there. Below
        ``least`` the answer is the one more class `UNKNOWN`, whose score is the nearest cosine.

        Raises:
            UsageError: as `nearest`.
        """
        rows, cosines = self.nearest(looked, count=count)
        votes: Counter[int] = Counter()
        scores = np.zeros(len(self.names), dtype=np.float32)
        if cosines[0] < self.least:
            scores = np.append(scores, np.float32(max(0.0, float(cosines[0]))))
            return Classification(scores, np.array([len(self.names)], dtype=np.int64), (*self.names, UNKNOWN))
        for row, cosine in zip(rows, cosines, strict=True):
            number = int(self.numbers[row])
            votes[number] += 1
            scores[number] = max(scores[number], min(1.0, float(cosine)))
        order = sorted(votes, key=lambda number: (-votes[number], -scores[number], number))
        return Classification(scores, np.array(order, dtype=np.int64), self.names)

    def stranger_limit(self, *, share: float = STRANGERS) -> tuple[float, float]:
        """The ``least`` at which so large a ``share`` of strangers is taken for somebody known, and what it costs.

        Each picture is a stranger to the pictures of all other identities, and known to the others of its own. The
        second value is the share of pictures (0..1) that the limit leaves known, of those whose identity has others.
        These are the rates of open-set identification (ISO/IEC 19795-1: false positives, and 1 - false negatives).

        Raises:
            DataError: all pictures are of one identity, or none has another of its own.
        """
        strange, own = [], []
        for row in np.unique(np.linspace(0, len(self.numbers) - 1, min(len(self.numbers), _MOST_STRANGERS), dtype=int)):
            number = self.numbers[row]
            cosines = self.vectors @ self.vectors[row]
            same = self.numbers == number
            if not same.all():
                strange.append(float(cosines[~same].max()))
            same[row] = False
            if same.any():
                own.append(float(cosines[same].max()))
        if not strange or not own:
            lacks = "are of one identity" if not strange else "are the only ones of their identities"
            raise DataError(f"strangers cannot be told apart: all {len(self.numbers)} pictures {lacks}; add pictures")
        limit = min(1.0, float(np.quantile(strange, 1 - share, method="higher")) + _ROUNDING)
        return limit, float(np.mean(np.array(own) >= limit))

    def save(self, path: Path) -> None:
        """Write the gallery as one .npz without pickles; the old file is there until the new one is whole."""
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as stream:
            np.savez_compressed(
                stream,
                form=np.array(FORM),
                vectors=self.vectors,
                numbers=self.numbers,
                names=np.array(self.names, dtype=np.str_),
                model=np.array(self.model),
                least=np.array(self.least),
            )
        os.replace(partial, path)


def load_gallery(path: Path) -> Gallery:
    """Read what `Gallery.save` wrote.

    Raises:
        UsageError: there is no such file.
        ArtifactError: it is corrupt, or no gallery.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if str(arrays.get("form", "")) != FORM:
            raise ArtifactError(f"{path} is no gallery of this edgecv ({FORM}); make it by edgecv index")
        return Gallery(
            arrays["vectors"].astype(np.float32),
            arrays["numbers"].astype(np.int64),
            tuple(str(name) for name in arrays["names"]),
            str(arrays["model"]),
            float(arrays["least"]) if "least" in arrays else -1.0,  # older ones know no strangers
        )
    except FileNotFoundError:
        raise UsageError(f"there is no gallery {path}; make it by edgecv index") from None
    except (OSError, ValueError, KeyError, EOFError, DataError, zipfile.BadZipFile, zlib.error) as error:
        raise ArtifactError(f"{path} cannot be read as a gallery ({error}); make it again by edgecv index") from error
