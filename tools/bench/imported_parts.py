"""Commands of edgecv as the benches of model files of others type them."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecv import cli

CLOSE = 0.005
"""So far off rounding and the decoder of the pictures may move a share."""
WHOLE = "--color bgr --range 0 255 --resize letterbox-topleft"
YOLOX = "yolox_nano/yolox_nano.onnx"
YOLOX_WORDS = f"--size 416 416 {WHOLE} --head yolox --option multi_label=true"


@dataclass(frozen=True)
class Place:
    """Where things are: the test data and a scratch folder of the row."""

    data: Path
    scratch: Path


@dataclass(frozen=True)
class Row:
    """One file: how it is imported (``words``; may write files into the scratch folder) and what judges it.

    ``judge`` gives the figure of an artifact; ``known`` is the manifest's, or None; ``within`` how far off is allowed.
    """

    name: str
    file: str
    family: str
    metric: str
    words: Callable[[Place], list[str]]
    judge: Callable[[Path, Place], float]
    known: float | None = None
    within: float = CLOSE


def command(*words: str) -> str:
    """What a command of edgecv prints.

    Raises:
        RuntimeError: it ended with another code than 0.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(list(words))
    if code:
        raise RuntimeError(f"edgecv {words[0]} ended with {code}: {err.getvalue().strip()[-500:]}")
    return out.getvalue()


def measured(row: Row, data: Path) -> float:
    """The figure of one file."""
    with tempfile.TemporaryDirectory() as folder:
        place, artifact = Place(data, Path(folder)), Path(folder) / "artifact"
        words = ["--out", str(artifact), "--family", row.family, *row.words(place)]
        command("import", str(data / "models" / row.file), *words)
        return row.judge(artifact, place)


def evaluated(metric: str, source: Callable[[Place], str]) -> Callable[[Path, Place], float]:
    """The value of ``edgecv eval --data``."""

    def judge(artifact: Path, place: Place) -> float:
        printed = command("eval", str(artifact), "--metric", metric, "--json", "--data", source(place))
        return float(json.loads(printed)["value"])

    return judge


def answers(artifact: Path, *pictures: Path) -> list[dict[str, Any]]:
    """What ``edgecv run`` says of each picture."""
    printed = command("run", str(artifact), *map(str, pictures), "--json")
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def labels_in(file: str, *, skip: int = 0) -> Callable[[Place], list[str]]:
    """``--labels`` from a list of the data pack, without its first ``skip`` names."""

    def words(place: Place) -> list[str]:
        lines = (place.data / file).read_text(encoding="utf-8-sig").splitlines()[skip:]
        return names(*(line for line in lines if line.strip()))(place)

    return words


def names(*labels: str) -> Callable[[Place], list[str]]:
    """``--labels`` with these names."""

    def words(place: Place) -> list[str]:
        out = place.scratch / "labels.txt"
        out.write_text("\n".join(labels), encoding="utf-8")
        return ["--labels", str(out)]

    return words


def nothing(place: Place) -> list[str]:
    """No ``--labels``: the family has its own."""
    return []


def both(words: Callable[[Place], list[str]], more: str) -> Callable[[Place], list[str]]:
    """The words of ``words``, then those of ``more``."""
    return lambda place: [*words(place), *more.split()]


def coco_names(place: Place) -> list[str]:
    """``--labels`` with COCO's 80 names."""
    table = json.loads((place.data / "coco-mini/instances.json").read_text(encoding="utf-8"))
    return names(*(item["name"] for item in sorted(table["categories"], key=lambda item: item["id"])))(place)
