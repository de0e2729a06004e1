"""`edgecv index`: a gallery of known identities, by which a picture's embedding gets a name."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from edgecv.commands.samples import data_spec, open_data
from edgecv.core.progress import PlainProgress
from edgecv.data.identities import identity_names
from edgecv.errors import UsageError
from edgecv.runtime.gallery import make_gallery
from edgecv.runtime.load import load_artifact


def index(options: argparse.Namespace) -> int:
    """Embed every picture of a data set of identities and write the gallery."""
    out = Path(options.out)
    if not out.parent.is_dir():
        raise UsageError(f"--out is {out}, and {out.parent} is no folder; make it first")
    names = identity_names(data_spec(options), base=Path.cwd())
    with load_artifact(options.artifact, threads=options.threads) as model:
        gallery = make_gallery(model, open_data(options, model), names, progress=PlainProgress())
    try:
        gallery.save(out)
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}); choose another place") from error
    pictures, length = gallery.vectors.shape
    if options.json:
        print(json.dumps({"pictures": pictures, "identities": len(gallery.names), "numbers": length, "out": str(out)}))
        return 0
    print(
        f"{out} knows {len(gallery.names)} identities by {pictures} pictures; try: "
        f"edgecv run {options.artifact} PICTURE --gallery {out}"
    )
    return 0
