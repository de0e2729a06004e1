"""A gallery of known identities: made from a data set by an embedding model, opened for that same model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgecv.core.progress import Progress, SilentProgress
from edgecv.core.protocols import Reader
from edgecv.errors import DataError, UsageError
from edgecv.families.gallery import Gallery, load_gallery
from edgecv.runtime.load import Model


def make_gallery(
    model: Model, reader: Reader, names: Mapping[str, str], *, progress: Progress | None = None
) -> Gallery:
    """The embeddings of all pictures of ``reader``; ``names`` tells whom each sample shows, by its id.

    Pictures that are only queries are left out.

    Raises:
        UsageError: the model is of another family than embedding.
        DataError: there is no picture to be found.
        EdgecvError: the engine failed.
    """
    _check_family(model)
    known = sorted(set(names.values()))
    vectors, numbers = [], []
    with (progress or SilentProgress()).task("index", len(reader)) as task:
        for index in range(len(reader)):
            sample = reader[index]
            if getattr(sample.truth, "role", "both") != "query":
                vectors.append(model.predict(sample.image).vector)
                numbers.append(known.index(names[sample.id]))
            task.advance()
    if not vectors:
        raise DataError("there is no picture for a gallery; all are queries")
    return Gallery(np.stack(vectors), np.array(numbers, dtype=np.int64), tuple(known), model.manifest.chain.file)


def open_gallery(path: str | Path, model: Model) -> Gallery:
    """The gallery in ``path``, to be searched with embeddings of ``model``.

    Raises:
        UsageError: there is none, the model is of another family, or another model file made the gallery.
        ArtifactError: the file is corrupt.
    """
    _check_family(model)
    found = load_gallery(Path(path))
    if found.model != model.manifest.chain.file:
        raise UsageError(
            f"the gallery {path} was made by the model file {found.model[:16]}…, {model.folder} has "
            f"{model.manifest.chain.file[:16]}…: their embeddings cannot be compared. Make it again: edgecv index "
            f"{model.folder} --data ... --out {path}"
        )
    return found


def _check_family(model: Model) -> None:
    kind = model.manifest.family.kind
    if kind != "embedding":
        raise UsageError(f"{model.folder} is a model for {kind}; a gallery needs one for embedding")
