"""An environment of their own for the tools that the benchmarks measure edgecv against."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path


def environment(folder: Path, *packages: str) -> str:
    """A virtual environment in ``folder`` with ``packages`` and all that this interpreter has; its Python.

    The packages come without their dependencies: what they need (torch, numpy, OpenCV) is here already, and
    nothing is installed into the environment that edgecv runs in.
    """
    venv.create(folder, with_pip=True)
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    inside = next((folder / "lib").glob("python*/site-packages"))
    (inside / "edgecv_bench.pth").write_text("".join(f"{place}\n" for place in sorted(places)), encoding="utf-8")
    for name in Path(sysconfig.get_path("purelib")).glob("_editable_impl_edgecv*.pth"):
        (inside / name.name).write_text(name.read_text(encoding="utf-8"), encoding="utf-8")
    python = str(folder / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", *packages]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return python
