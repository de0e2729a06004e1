"""Makes the environment of a board on this machine: the oldest Python that edgecv supports, numpy, OpenCV, one engine.

``python tools/device_env.py FOLDER`` prints the interpreter's path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = "3.10"


def oldest_python() -> str | None:
    """An interpreter of the oldest supported version: on the PATH or kept by pyenv; None where there is none."""
    places = [shutil.which(f"python{OLDEST}") or ""]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places += [str(path) for path in sorted(pyenv.glob(f"{OLDEST}.*/bin/python"), reverse=True)]
    for place in filter(None, places):
        # A pyenv shim answers with an error where its version is not chosen.
        if subprocess.run([place, "--version"], capture_output=True, check=False).returncode == 0:
            return place
    return None


def make_device_env(folder: Path, *, python: str, engine: str = "onnxruntime", more: tuple[str, ...] = ()) -> str:
    """Install edgecv with one ``engine`` (and ``more`` packages) as a board would; returns the interpreter."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
    made = str(folder / "bin" / "python")
    words = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", made, f"{ROOT}[{engine}]", *more]
    subprocess.run(words, check=True)
    return made


if __name__ == "__main__":
    print(make_device_env(Path(sys.argv[1]), python=oldest_python() or sys.executable))
