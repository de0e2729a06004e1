"""One picture with what every model family draws: a row a run, a few evaluation pictures with their overlay.

``python tools/contact_sheet.py RUNS sheet.png``: RUNS holds the folders of `edgecv optimize` runs, such as those that
``tools/bench/families.py --out RUNS`` leaves. Of each run the first artifact that this machine can run is asked.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgecv.core.recipe import DataSpec
from edgecv.core.results import Classification, Detections
from edgecv.data.readers import open_reader
from edgecv.errors import DataError, EdgecvError
from edgecv.recipe.paths import resolve_data
from edgecv.report.schema_io import read_report
from edgecv.runtime.load import load_artifact
from edgecv.vision.draw import draw
from edgecv.vision.image import Image

HEIGHT, WIDTH = 300, 400
CAPTION = 34
SHOWN_FROM = 0.3
"""Boxes below this score are left out, as a user would: recipes evaluate them all."""


def pictures(run: Path, count: int) -> Iterator[Image]:
    """Evaluation pictures of the run's recipe with the answers of its artifact drawn in, each of the sheet's size."""
    report = read_report(run)
    data: dict[str, Any] = dict(report.recipe["data"]["eval"])
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    spec, missing = resolve_data(DataSpec(**values), base=run, env=os.environ)
    if missing:
        raise DataError(f"{run}: {missing[0][1]}")
    last: EdgecvError | None = None
    for item in report.artifacts:
        if item.role != "optimized" or item.error or not item.folder:
            continue
        try:
            with load_artifact(run / item.folder) as model:
                manifest = model.manifest
                reader = open_reader(spec, base=run, labels=manifest.family.labels, clip=manifest.contract.clip)
                for index in range(0, len(reader), max(1, len(reader) // count))[:count]:
                    image = reader[index].image
                    yield drawn(image, model.predict(image))
            return
        except EdgecvError as error:
            last = error
    raise last or SystemExit(f"{run}: there is no artifact")


def drawn(image: Any, result: Any) -> Image:
    """``result`` over the picture (the last one of a clip); one without places is drawn at the sheet's size."""
    picture = image[-1] if image.ndim == 4 else image
    picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) if picture.ndim == 2 else picture.copy()
    if isinstance(result, Detections):
        result = result.select(np.flatnonzero(result.scores >= SHOWN_FROM))
    placeless = isinstance(result, Classification)
    if not placeless:
        draw(picture, result)
    scale = min(WIDTH / picture.shape[1], HEIGHT / picture.shape[0])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    if placeless:
        draw(small, result)
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
            cells = list(pictures(run, options.count))
        except DataError as error:  # the pictures of some runs are made for them and gone
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
