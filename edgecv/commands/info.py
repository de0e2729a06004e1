"""`edgecv list` and `edgecv doctor`: what there is, and what this machine can do with it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import edgecv
from edgecv import backends, families
from edgecv.core.kinds import FAMILY_KINDS
from edgecv.families.support import in_words
from edgecv.measure.host import machine_facts


def list_things(options: argparse.Namespace) -> int:
    """Print the names of one kind of thing."""
    rows = _rows(options.what)
    if options.json:
        print(json.dumps(rows, indent=2))
        return 0
    columns = list(rows[0]) if rows else []
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in columns}
    for row in [{name: name for name in columns}, *rows]:
        print("  ".join(str(row[name]).ljust(widths[name]) for name in columns).rstrip())
    return 0


def _rows(what: str) -> list[dict[str, Any]]:
    if what == "targets":
        return [
            {
                "name": target.name,
                "title": target.title,
                "backend": target.backend,
                "memory": f"{target.memory_mb} MB" if target.memory_mb else "",
                "precisions": ", ".join(target.precisions),
            }
            for target in _targets()
        ]
    if what == "backends":
        return [_backend_row(name) for name in backends.BACKENDS]
    if what == "families":
        return [
            {
                "name": kind,
                "metrics": ", ".join(family.METRICS),
                "data": ", ".join(FAMILY_KINDS[kind].data) or "none yet",
                "engines": in_words(kind),
                "heads": ", ".join(family.HEAD_NAMES) or "one layout",
            }
            for kind, family in families.FAMILIES.items()
        ]
    from edgecv.recipe.files import data_folder

    folder = data_folder("recipes" if what == "recipes" else "calibration")
    pattern = "*/*.yaml" if what == "recipes" else "*.yaml"
    return [{"name": path.stem, "file": _short(path)} for path in sorted(folder.glob(pattern))]


def _targets() -> list[Any]:
    from edgecv.recipe.targets import list_targets, load_target

    return [load_target(name, base=Path()) for name in list_targets()]


def _backend_row(name: str) -> dict[str, Any]:
    backend = backends.get(name)
    return {
        "name": name,
        "version": backend.version() or "not installed",
        "compiles here": backend.missing(to="compile") or "yes",
        "runs here": backend.missing(to="run") or "yes",
    }


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def doctor(options: argparse.Namespace) -> int:
    """Print the machine and what each engine can do on it."""
    rows = [_backend_row(name) for name in backends.BACKENDS]
    facts = machine_facts({row["name"]: row["version"] for row in rows})
    if options.json:
        from edgecv.core.plain import to_plain

        print(json.dumps({"edgecv": edgecv.__version__, "machine": to_plain(facts), "backends": rows}, indent=2))
        return 0
    print(f"edgecv {edgecv.__version__}, Python {sys.version.split()[0]}")
    board = f"{facts.board}, " if facts.board else ""
    print(f"{board}{facts.cpu}, {facts.cores} cores, {facts.memory_mb} MB, {facts.system} {facts.machine}")
    print()
    for row in rows:
        print(f"{row['name']} {row['version']}")
        for what in ("compiles here", "runs here"):
            print(f"  {what}: {row[what]}")
    return 0
