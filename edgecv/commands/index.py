"""`edgecv index`: a gallery of known identities, by which a picture's embedding gets a name."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

from edgecv.commands.samples import data_spec, open_data
from edgecv.core.progress import PlainProgress
from edgecv.data.identities import identity_names
from edgecv.errors import UsageError
from edgecv.families.gallery import STRANGERS, Gallery
from edgecv.runtime.gallery import make_gallery
from edgecv.runtime.load import load_artifact


def index(options: argparse.Namespace) -> int:
    """Embed every picture of a data set of identities and write the gallery."""
    out = Path(options.out)
    if not out.parent.is_dir():
        raise UsageError(f"--out is {out}, and {out.parent} is no folder; make it first")
    least = _least(options.known_from)
    names = identity_names(data_spec(options), base=Path.cwd())
    with load_artifact(options.artifact, threads=options.threads) as model:
        gallery = make_gallery(model, open_data(options, model), names, progress=PlainProgress())
    gallery, recognised = _with_limit(gallery, least)
    try:
        gallery.save(out)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}); choose another place") from error
    pictures, length = gallery.vectors.shape
    if options.json:
        told = {"pictures": pictures, "identities": len(gallery.names), "numbers": length, "out": str(out)}
        if least is not None:
            told |= {"known_from": gallery.least, "recognised": recognised}
        print(json.dumps(told))
        return 0
    print(
        f"{out} knows {len(gallery.names)} identities by {pictures} pictures; try: "
        f"edgecv run {options.artifact} PICTURE --gallery {out}"
    )
    if least == "auto":
        print(
            f"unknown is who is below a cosine of {gallery.least:.3f} to all of them: of these pictures {STRANGERS:.0%}"
            f" would pass as somebody else, and {recognised:.0%} are still recognised by the others of their identity"
        )
    elif least is not None:
        print(f"unknown is who is below a cosine of {gallery.least:g} to all of them")
    return 0


def _least(given: str | None) -> float | Literal["auto"] | None:
    """What ``--known-from`` says.

    Raises:
        UsageError: it is neither a cosine nor auto.
    """
    if given is None:
        return None
    if given == "auto":
        return "auto"
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1:
        raise UsageError(f"--known-from is {given}; allowed are auto and a cosine from -1 to 1")
    return value


def _with_limit(gallery: Gallery, least: float | str | None) -> tuple[Gallery, float | None]:
    """``gallery`` with its least cosine, and the share of its pictures that an automatic one leaves known.

    Raises:
        DataError: it has too few identities or pictures for an automatic one.
    """
    if least is None:
        return gallery, None
    if least == "auto":
        limit, recognised = gallery.stranger_limit()
        return replace(gallery, least=limit), recognised
    return replace(gallery, least=float(least)), None
