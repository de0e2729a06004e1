"""Holds the tests' line coverage of the two halves against their limits; run after pytest --cov."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

LIMITS = {"device half": 90.0, "host half": 80.0}
HOST = ("recipe", "models", "optimize", "build", "commands")


def main() -> int:
    """Print both figures; 1 where one is below its limit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        if list(Path().glob(".coverage.*")):
            subprocess.run([sys.executable, "-m", "coverage", "combine", "-q"], check=True)
        subprocess.run([sys.executable, "-m", "coverage", "json", "-q", "-o", str(path)], check=True)
        files = json.loads(path.read_text())["files"]
    totals = {half: [0, 0] for half in LIMITS}
    for name, figures in files.items():
        half = "host half" if Path(name).parts[1] in HOST else "device half"
        totals[half][0] += figures["summary"]["covered_lines"]
        totals[half][1] += figures["summary"]["num_statements"]
    below = False
    for half, (covered, total) in totals.items():
        share = 100.0 * covered / max(1, total)
        below |= share < LIMITS[half]
        print(f"coverage of the {half}: {share:.1f} % of {total} lines (limit {LIMITS[half]:.0f} %)")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
