"""Files of procfs and sysfs: each holds one value, and what cannot be read counts as absent."""

from __future__ import annotations

from pathlib import Path


def text(path: Path) -> str:
    """The file's text without its line end and its closing null; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\x00\n ")
    except OSError:  # sensors that are switched off answer with an error
        return ""


def number(path: Path) -> int | None:
    """The file's whole number; None where there is none or it cannot be read."""
    try:
        return int(text(path))
    except ValueError:
        return None


def numbered(folder: Path, pattern: str) -> list[Path]:
    """What matches ``pattern`` below ``folder``, with number 2 before number 10."""
    return sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.as_posix()))
