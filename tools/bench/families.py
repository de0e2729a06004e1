"""Every model family on the engines of this machine: float and int8 by the family's own metric, sizes, times.

Each row is a recipe that is run as `edgecv optimize` runs it. Unless ``--whole`` is given its steps are only those that
make int8 (and ``fit``, without which an anomaly network knows nothing), with the repair ladder (``repair: ptq``) and
this table's limit as budget: what is lost is then what int8 costs, not what pruning costs. Super-resolution alone is
trained, as its recipe says.

Recipes without data of their own run on made-up scenes; with EDGECV_TEST_DATA those on real pictures follow, and with
``--weights DIR`` detectors of other architectures (SSD, RetinaNet, FCOS, RT-DETR, DETR), which are trained on scenes
where DIR has no weights of theirs (an hour and a half for all, on one core). What cannot be measured on a busy machine
is said in its note. Absolute times belong to this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
from families_detectors import DETECTORS, detector_recipe
from families_floor import floor_settings
from families_tiles import room_settings, streets_settings
from people import osnet_settings, sinet_settings
from restoration_pairs import pair_settings

from edgecv import cli
from edgecv.core.kinds import metric_loss, metric_unit
from edgecv.errors import EdgecvError
from edgecv.report.schema import ArtifactFigures, Report
from edgecv.report.schema_io import read_report

RECIPES = Path(__file__).resolve().parent.parent.parent / "recipes"
ENGINES = ("host-onnxruntime", "host-openvino", "host-litert")
ENOUGH = 0.01
"""An int8 loss of so much of a metric from 0 to 1 is allowed."""
ENOUGH_DB = 0.2
MADE_UP = (
    "classification/digits",
    "detection/scenes-yolo",
    "detection/scenes-faster-rcnn",
    "segmentation/scenes-unet",
    "instance/scenes-yoloseg",
    "pose/scenes-pose",
    "depth/scenes-depth",
    "text/scenes-textdet",
    "text/scenes-words",
    "anomaly/scenes-patchcore",
    "anomaly/scenes-padim",
    "anomaly/scenes-reconstruction",
    "anomaly/scenes-student",
    "video/scenes-motions",
    "video/scenes-stream",
    "video/scenes-tsm",
    "embedding/scenes-identities",
    "restoration/scenes-denoise",
)
PAIRS = "restoration/imdn-rtc-x2"
"""This one needs pairs to learn from, and training: without it int8 costs more than a decibel."""
REAL = (
    "classification/cifar10-resnet20",
    "detection/yolox-nano",
    "detection/fastestdet",
    "segmentation/sinet-portrait",
    "embedding/osnet-x0-25",
    "text/lprnet-plates",
    PAIRS,
)
FLOOR = "anomaly/scenes-patchcore on a wooden floor"
"""That recipe on a real surface, with painted defects."""
STREETS = "segmentation/scenes-unet on streets"
ROOM = "depth/scenes-depth in a room"
"""Those recipes on tiles of real pictures, with weights of their own."""
MADE: dict[str, Callable[[Path, Path], list[str]]] = {
    FLOOR: floor_settings,
    STREETS: streets_settings,
    ROOM: room_settings,
    PAIRS: pair_settings,
    "segmentation/sinet-portrait": sinet_settings,
    "embedding/osnet-x0-25": osnet_settings,
}
"""What is cut out of the test data for a row, as ``--set`` values: ``(test data, folder to write into)``."""
JUDGED_BY = {"delta1": "abs_rel"}
"""Metrics that this table judges by another of the family, of which a hundredth may be lost, too."""
KEPT = ("fit", "quantize")


@dataclass(frozen=True)
class Row:
    """A recipe of the table."""

    path: Path
    whole: bool
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the folder of its run."""
        named = next((item.partition("=")[2] for item in self.settings if item.startswith("name=")), "")
        return named or self.path.stem

    def words(self, out: Path, cache: Path) -> list[str]:
        """The command line of its run."""
        words = ["optimize", str(self.path), "--out", str(out), "--cache", str(cache)]
        words += ["--set", f"targets=[{', '.join(ENGINES)}]"]
        if not self.whole:
            recipe = yaml.safe_load(self.path.read_text(encoding="utf-8"))
            words += ["--set", f"steps={json.dumps(_int8_steps(recipe['steps']))}"]
            metric = recipe["budgets"]["accuracy"]["metric"]
            metric = JUDGED_BY.get(metric, metric)
            accuracy = {"metric": metric, "max_drop": _allowed(metric)}
            words += ["--set", f"budgets={json.dumps({'accuracy': accuracy})}"]
        for setting in self.settings:
            words += ["--set", setting]
        return words


def _int8_steps(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps of a recipe without pruning and tuning, with the ladder."""
    kept = [step for step in steps if next(iter(step)) in KEPT]
    fits = [step for step in kept if "fit" in step][:1]
    quantize = {**next(step["quantize"] for step in kept if "quantize" in step), "repair": "ptq"}
    training = ("epochs", "lr", "batch_size", "step_sizes", "distill", "augment", "ema", "freeze")
    if quantize.get("method") == "qat":
        quantize = {key: value for key, value in quantize.items() if key not in training} | {"method": "ptq"}
    return [*fits, {"quantize": quantize}]


def _allowed(metric: str) -> float:
    """How much of ``metric`` int8 may cost."""
    return ENOUGH if metric_unit(metric) == "share" else ENOUGH_DB


def run(row: Row, folder: Path) -> tuple[Report | None, float, str]:
    """The report of a recipe's run, its seconds, and what it said where it failed."""
    out = row.name
    said, started = io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.main(row.words(folder / out, folder / "cache"))
    seconds = time.monotonic() - started
    try:
        return read_report(folder / out), seconds, f"exit {code}"
    except (OSError, ValueError, EdgecvError):
        return None, seconds, f"exit {code}: {said.getvalue().strip().splitlines()[-1:]}"


def _architecture(report: Report) -> str:
    """The family, and the network by its name in the library or its file's."""
    kind, _, name = str(report.recipe["model"]["source"]).partition(":")
    name = Path(name).name if kind == "onnx" else name.rpartition(":")[2]
    return f"{report.recipe['family']['kind']}, {name}"


def show(report: Report) -> bool:
    """The rows of one recipe, an engine each; whether int8 costs no more than allowed."""
    fine = True
    for target in ENGINES:
        found: dict[str, ArtifactFigures] = {}
        found |= {item.role: item for item in report.artifacts if item.target == target}
        plain, small = _figures(report, found, "float"), found.get("optimized")
        if small is None or small.accuracy is None or plain is None or plain.accuracy is None:
            why = small.error if small is not None and small.error else "no figure"
            print(f"  {target[5:]:12} {why}", flush=True)
            fine = False
            continue
        metric = small.accuracy.metric
        share = metric_unit(metric) == "share"
        lost, allowed = metric_loss(metric, plain.accuracy.value, small.accuracy.value), _allowed(metric)
        fine &= lost <= allowed
        times = 100 if share else 1
        interval = ""
        if small.drop is not None and small.drop.interval is not None:
            ends = small.drop.interval
            interval = f"[{times * ends.low:6.2f}, {times * ends.high:6.2f}]"
        print(
            f"  {target[5:]:12} {metric:10} {times * plain.accuracy.value:7.2f} "
            f"{times * small.accuracy.value:7.2f} {times * lost:6.2f} {interval:17} "
            f"{'' if lost <= allowed else 'MISSED':6} {_size(plain)} {_size(small)} {_time(plain)} {_time(small)}  "
            f"{small.accuracy.file_sha256[:12]}",
            flush=True,
        )
    return fine


def _figures(report: Report, found: dict[str, ArtifactFigures], role: str) -> ArtifactFigures | None:
    """The float reference of an engine, which is told once for all targets of its backend."""
    own = found.get(role)
    if own is not None or "optimized" not in found:
        return own
    backend = found["optimized"].backend
    return next((item for item in report.artifacts if item.backend == backend and item.role == role), None)


def _size(item: ArtifactFigures) -> str:
    return f"{item.file_bytes / 1e3:7.0f} kB" if item.file_bytes else f"{'':10}"


def _time(item: ArtifactFigures) -> str:
    value = item.latency
    return f"{value.model.p50_ms:7.2f} ms" if value is not None and value.model.p50_ms else f"{'':10}"


def _named(options: argparse.Namespace, data: str | None) -> list[str]:
    """The rows that are asked for."""
    names = [*MADE_UP, *((*REAL, FLOOR, STREETS, ROOM) if data else ()), *(DETECTORS if options.weights else ())]
    return [name for name in names if not options.only or any(text in name for text in options.only)]


def _row(name: str, options: argparse.Namespace, data: str | None, folder: Path) -> Row:
    """A row, with what it needs made in ``folder``."""
    if name in DETECTORS:
        return Row(detector_recipe(name, weights=options.weights, folder=folder / "recipes"), options.whole)
    settings = MADE[name](Path(data), folder / "made" / name) if data and name in MADE else []
    return Row(RECIPES / f"{name.partition(' ')[0]}.yaml", options.whole or name == PAIRS, tuple(settings))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="recipes whose name holds one of these texts")
    parser.add_argument("--whole", action="store_true", help="the recipes as they stand, with pruning and tuning")
    parser.add_argument("--out", type=Path, help="keep the runs' artifacts and reports here")
    parser.add_argument("--weights", type=Path, help="also the trained detectors, whose weights are kept here")
    options = parser.parse_args()
    data = os.environ.get("EDGECV_TEST_DATA")
    if data:
        os.environ.setdefault("EDGECV_DATA", data)
    print(
        "metrics and losses in points of 100, or dB; losses are int8's against float on the same engine, with the 95 %"
    )
    print("interval of the gate; sizes and median times of the engine call: float, int8; hash of the int8 file")
    missed = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        for name in _named(options, data):
            row = _row(name, options, data, Path(temporary))
            report, seconds, outcome = run(row, folder)
            if report is None:
                print(f"{name}: {outcome}", flush=True)
                missed.append(name)
                continue
            print(f"{report.name}: {_architecture(report)}; {outcome}, {seconds:.0f} s", flush=True)
            if not show(report):
                missed.append(name)
    print(f"within the limit: all but {', '.join(missed)}" if missed else "within the limit: all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
