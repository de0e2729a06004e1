"""What edgecv itself costs: the run around the work, the command line, the import on a device.

Prints four figures with their limits and exits with 1 where one is not met:
- share of a whole demo run that is not training, calibration, conversion, evaluation or measuring (<= 5 %);
- CPU seconds of ``edgecv --help`` (<= 0.25);
- wall seconds of an unchanged second run (< 3);
- CPU seconds of importing the device half beyond numpy and cv2 (<= 0.2), and the heavy modules it loads (none).

``--device-python PYTHON`` names an interpreter whose environment has only numpy, OpenCV and one engine; without it
one is made with ``python3.10`` (or this Python's version) in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPE = ROOT / "recipes" / "classification" / "digits.yaml"
WORK = ("prune", "finetune", "quantize", "export", "reference", "compile", "verify", "evaluate", "measure")
HEAVY = ("torch", "onnx", "yaml", "pydantic")
DEVICE_MODULES = (
    "edgecv, edgecv.core.artifact, edgecv.vision.image, edgecv.families, edgecv.backends, edgecv.measure.latency, "
    "edgecv.measure.accuracy, edgecv.runtime.load, edgecv.runtime.importer, edgecv.commands.artifact"
)


sys.path.insert(0, str(ROOT / "tools"))
from device_env import make_device_env, oldest_python  # noqa: E402


def device_python(folder: Path) -> str:
    """An interpreter with what a board has; of this Python's version where the oldest is not installed."""
    return make_device_env(folder, python=oldest_python() or sys.executable)


def cpu_of(command: list[str], *, repeat: int = 9) -> float:
    """Smallest CPU time of ``repeat`` runs of a command, in seconds."""
    best = float("inf")
    for _ in range(repeat):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def edgecv(*arguments: str) -> list[str]:
    """The command line of edgecv in this environment."""
    return [sys.executable, "-m", "edgecv", *arguments]


def run_figures(folder: Path) -> tuple[float, float, float]:
    """Share of overhead of a fresh run, its wall seconds, and the wall seconds of the second run."""
    command = edgecv("optimize", str(RECIPE), "--out", str(folder / "out"), "--cache", str(folder / "cache"))
    walls = []
    for _ in range(2):
        started_s = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        walls.append(time.perf_counter() - started_s)
        if len(walls) == 1:
            report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    worked = sum(step["seconds"] for step in report["steps"] if step["kind"] in WORK)
    return (walls[0] - worked) / walls[0], walls[0], walls[1]


def import_figures(python: str) -> tuple[float, list[str], str]:
    """CPU seconds of the device half beyond numpy and cv2, the heavy modules loaded, the Python version."""
    base = cpu_of([python, "-c", "import numpy, cv2"])
    whole = cpu_of([python, "-c", f"import numpy, cv2, {DEVICE_MODULES}"])
    code = f"import sys, json, {DEVICE_MODULES}; print(json.dumps([sorted(sys.modules), sys.version.split()[0]]))"
    found = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=os.path.sep)
    modules, version = json.loads(found.stdout)
    return whole - base, [name for name in modules if name in HEAVY], version


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device-python")
    parser.add_argument("--skip-run", action="store_true", help="leave the whole run out")
    options = parser.parse_args()
    rows: list[tuple[str, str, str, bool]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not options.skip_run:
            share, first, second = run_figures(folder)
            rows.append((f"overhead of a run of {first:.0f} s", f"{share:.1%}", "<= 5 %", share <= 0.05))
            rows.append(("second, unchanged run", f"{second:.2f} s", "< 3 s", second < 3))
        help_s = cpu_of(edgecv("--help"))
        rows.append(("edgecv --help, CPU", f"{help_s:.3f} s", "<= 0.25 s", help_s <= 0.25))
        beyond_s, heavy, version = import_figures(options.device_python or device_python(folder / "venv"))
        rows.append((f"import of the device half, Python {version}", f"{beyond_s:.3f} s", "<= 0.2 s", beyond_s <= 0.2))
        rows.append(("heavy modules it loads", ", ".join(heavy) or "none", "none", not heavy))
    for what, figure, limit, holds in rows:
        print(f"{what:48} {figure:>10}   {limit:10} {'ok' if holds else 'MISSED'}")
    return 0 if all(row[3] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
