"""Kill -9 in every step of the demo's run, resume each time, and compare the final hashes with an undisturbed run.

Prints a line for each step that was killed and exits with 1 where a finished step was lost or a hash differs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgecv.build.store import Store
from edgecv.core.artifact import read_manifest

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPE = ROOT / "recipes" / "classification" / "digits.yaml"


def command(folder: Path) -> list[str]:
    """The demo with short measuring, into ``folder``."""
    words = [sys.executable, "-m", "edgecv", "optimize", str(RECIPE), "--set", "measure.protocol=smoke"]
    return [*words, "--out", str(folder / "out"), "--cache", str(folder / "cache")]


def hashes(folder: Path) -> dict[str, object]:
    """Chain and files of every artifact."""
    found: dict[str, object] = {}
    for path in sorted((folder / "out").glob("*/manifest.json")):
        manifest = read_manifest(path.parent)
        found[path.parent.name] = (manifest.chain, manifest.files)
    return found


def main() -> int:
    """Kill, resume, compare."""
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        subprocess.run(command(whole), check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        dry = subprocess.run([*command(killed), "--dry-run", "--json"], check=True, capture_output=True, text=True)
        steps, store, lost = json.loads(dry.stdout)["steps"], Store(killed / "cache"), 0
        finished: set[str] = set()
        for step in steps:
            child = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while child.poll() is None and not store.work(step["key"]).exists() and not store.record(step["key"]):
                time.sleep(0.001)
            child.kill()
            child.wait()
            lost += sum(store.record(key) is None for key in finished)
            finished |= {item["key"] for item in steps if store.record(item["key"]) is not None}
            state = "finished just before" if step["key"] in finished else "killed in it"
            print(f"{step['kind']:10} {step['title']:60} {state}", flush=True)
        done = subprocess.run(command(killed), check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        same = hashes(whole) == hashes(killed)
        print(f"resumed: exit code {done.returncode}; finished steps lost: {lost}; same final hashes: {same}")
        return 0 if same and lost == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
