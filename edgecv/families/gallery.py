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
_UNIT = 1e-3


@dataclass(frozen=True)
class Gallery:
    """Embeddings of known identities: ``vectors`` `(N, D)` float32 of length 1, ``numbers`` `(N,)` into ``names``.

    ``model`` is the hash of the model file that made them: another one's vectors cannot be compared with these. A
    search looks at every vector: a million multiply-adds for 2,000 pictures of 512 numbers, so that some 100,000 of
    them (200 MB) take about 13 ms on one core of a desktop; below that an approximate index is not needed.
    """

    vectors: FloatArray
    numbers: npt.NDArray[np.int64]
    names: tuple[str, ...]
    model: str

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

        Scores are each identity's largest cosine among the ``count`` neighbours, 0 where it has none there.

        Raises:
            UsageError: as `nearest`.
        """
        rows, cosines = self.nearest(looked, count=count)
        votes: Counter[int] = Counter()
        scores = np.zeros(len(self.names), dtype=np.float32)
        for row, cosine in zip(rows, cosines, strict=True):
            number = int(self.numbers[row])
            votes[number] += 1
            scores[number] = max(scores[number], min(1.0, float(cosine)))
        order = sorted(votes, key=lambda number: (-votes[number], -scores[number], number))
        return Classification(scores, np.array(order, dtype=np.int64), self.names)

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
        )
    except FileNotFoundError:
        raise UsageError(f"there is no gallery {path}; make it by edgecv index") from None
    except (OSError, ValueError, KeyError, EOFError, DataError, zipfile.BadZipFile, zlib.error) as error:
        raise ArtifactError(f"{path} cannot be read as a gallery ({error}); make it again by edgecv index") from error
