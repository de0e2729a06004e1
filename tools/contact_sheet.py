"""One picture with what every model family draws: a row a run, a few pictures as `edgecv run` shows them.

``python tools/contact_sheet.py RUNS sheet.png``: RUNS holds the folders of `edgecv optimize` runs, such as those that
``tools/bench/families.py --out RUNS`` leaves. The recipe's evaluation pictures are the camera of the first artifact
that this machine can run; of a network for clips, a clip's frames are, and what is drawn on the last of them is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgecv import cli
from edgecv.core.artifact import Manifest, read_manifest
from edgecv.core.protocols import Reader
from edgecv.core.recipe import DataSpec
from edgecv.data.readers import open_reader
from edgecv.errors import DataError, EdgecvError
from edgecv.recipe.paths import resolve_data
from edgecv.report.schema_io import read_report
from edgecv.vision.image import Image

HEIGHT, WIDTH = 300, 400
CAPTION = 34
SHOWN_FROM = 0.3
"""Boxes below this score are left out, as a user would: recipes evaluate them all."""
LEAST = 240
"""Pixels on the shorter side, or what is written over a picture could not be read."""


def pictures(run: Path, count: int) -> list[Image]:
    """What the camera loop drew on evaluation pictures of the run's recipe, each of the sheet's size.

    Raises:
        EdgecvError: there is no such data any more, or no artifact that runs here.
    """
    report = read_report(run)
    data: dict[str, Any] = dict(report.recipe["data"]["eval"])
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    spec, missing = resolve_data(DataSpec(**values), base=run, env=os.environ)
    if missing:
        raise DataError(f"{run}: {missing[0][1]}")
    said = "there is no artifact"
    for item in report.artifacts:
        if item.role != "optimized" or item.error or not item.folder:
            continue
        artifact = run / item.folder
        manifest = read_manifest(artifact)
        reader = open_reader(spec, base=run, labels=manifest.family.labels, clip=manifest.contract.clip)
        chosen = sorted(np.random.default_rng(0).permutation(len(reader))[:count].tolist())
        with tempfile.TemporaryDirectory() as folder:
            found, said = _shown(artifact, manifest, reader, chosen, Path(folder))
        if found:
            return [fitted(image) for image in found]
    raise DataError(f"{run}: {said}")


def _shown(
    artifact: Path, manifest: Manifest, reader: Reader, chosen: Sequence[int], folder: Path
) -> tuple[list[Image], str]:
    """What the loop saved of the chosen samples, or why there is nothing."""
    clip = manifest.contract.clip
    # A clip is a short film of its own; pictures are one film.
    films = [[reader[index].image] for index in chosen] if clip else [[reader[index].image for index in chosen]]
    found: list[Image] = []
    for number, film in enumerate(films):
        frames = list(film[0]) if clip else film
        place, saved = folder / f"in{number}", folder / f"out{number}"
        place.mkdir()
        for index, frame in enumerate(frames):
            cv2.imwrite(str(place / f"{index:03d}.png"), _large(frame))
        words = ["run", "--model", str(artifact), "--camera", str(place), "--policy", "every", "--quiet"]
        words += ["--save", str(saved)]
        if clip:
            words += ["--camera-option", f"fps={clip.fps:g}"]
        if manifest.family.kind in ("detection", "instance"):
            words += ["--score", str(SHOWN_FROM)]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.main(words)
        made = sorted(saved.glob("*.png"))
        if code != 0 or not made:
            return [], f"edgecv {' '.join(words)}: exit {code}: {said.getvalue().strip()[-300:]}"
        found += [np.asarray(cv2.imread(str(path)), dtype=np.uint8) for path in (made[-1:] if clip else made)]
    return found, ""


def _large(image: Image) -> Image:
    """The picture itself; a tiny one many times as large, without smoothing."""
    times = -(-LEAST // min(image.shape[:2]))
    if times < 4:
        return image
    return np.repeat(np.repeat(image, times, axis=0), times, axis=1)


def fitted(picture: Image) -> Image:
    """The picture in the middle of a cell of the sheet."""
    scale = min(WIDTH / picture.shape[1], HEIGHT / picture.shape[0])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    cell = np.full((HEIGHT, WIDTH, 3), 32, dtype=np.uint8)
    top, left = (HEIGHT - size[1]) // 2, (WIDTH - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    return cell


def main() -> int:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder with a folder a run")
    parser.add_argument("sheet", type=Path, help="the picture to write, .png")
    parser.add_argument("--count", type=int, default=3, help="pictures a run")
    options = parser.parse_args()
    rows = []
    for run in sorted(path.parent for path in options.runs.glob("*/report.json")):
        caption = np.full((CAPTION, WIDTH * options.count, 3), 16, dtype=np.uint8)
        cv2.putText(caption, run.name, (10, 24), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 1, cv2.LINE_AA)
        try:
            cells = pictures(run, options.count)
        except EdgecvError as error:  # the pictures of some runs are made for them and gone
            print(f"{run.name}: left out, {error}", flush=True)
            continue
        cells += [np.full_like(cells[0], 32)] * (options.count - len(cells))
        rows += [caption, np.hstack(cells)]
        print(f"{run.name}: {len(cells)} pictures", flush=True)
    if not rows:
        raise SystemExit(f"{options.runs}: there is no run, a folder with report.json")
    cv2.imwrite(str(options.sheet), np.vstack(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
