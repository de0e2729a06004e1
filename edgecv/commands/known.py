"""Whom a command knows: a gallery's file as it is, or one made in passing of a folder of known identities."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edgecv.core.progress import PlainProgress
from edgecv.core.recipe import DataSpec
from edgecv.data.identities import identity_names
from edgecv.data.readers import open_reader
from edgecv.runtime.gallery import make_gallery
from edgecv.runtime.load import load_artifact
from edgecv.runtime.spec import PipelineSpec


@contextmanager
def known_identities(given: str, artifact: str, *, threads: int | None) -> Iterator[str]:
    """The gallery's file for ``given``, which is a file of `edgecv index` or a folder with one folder an identity.

    Of a folder the model ``artifact`` embeds all pictures first; that gallery is gone when the context ends. Other
    names, and none, come back as they are.

    Raises:
        UsageError: the model is of another family than embedding.
        DataError: the folder has no folders of pictures, or none of the pictures can be read.
        EdgecvError: the artifact cannot be loaded, or the engine failed.
    """
    if not given or not Path(given).is_dir():
        yield given
        return
    spec = DataSpec(kind="identities", path=given)
    names = identity_names(spec, base=Path.cwd())
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "gallery.npz"
        with load_artifact(artifact, threads=threads) as model:
            reader = open_reader(spec, base=Path.cwd(), labels=model.manifest.family.labels, progress=PlainProgress())
            make_gallery(model, reader, names, progress=PlainProgress()).save(file)
        yield str(file)


@contextmanager
def with_known(spec: PipelineSpec) -> Iterator[PipelineSpec]:
    """``spec`` with its gallery, or that of its second stage, as a file.

    Raises:
        EdgecvError: the pipeline cannot run, or as `known_identities`.
    """
    spec.check()
    if spec.second is not None:
        with known_identities(spec.second.gallery, spec.second.artifact, threads=spec.threads) as file:
            yield replace(spec, second=replace(spec.second, gallery=file))
    else:
        with known_identities(spec.gallery, spec.model[0] if spec.model else "", threads=spec.threads) as file:
            yield replace(spec, gallery=file)
