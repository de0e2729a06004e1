"""Calibration manifests: ``calibration/<name>.yaml``, found beside the recipe or in edgecv itself."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from edgecv.core.calibration import CalibrationManifest
from edgecv.errors import Problem, RecipeError
from edgecv.recipe.files import data_folder
from edgecv.recipe.paths import resolve_data
from edgecv.recipe.targets import is_path, name_problem
from edgecv.recipe.typed import Found, did_you_mean, load_typed, validate
from edgecv.recipe.yaml_lines import read_yaml, to_yaml

MAX_BYTES = 16_000_000
"""A manifest of 100,000 pictures is below this."""


def calibration_folders(base: Path) -> list[Path]:
    """Where manifests are looked for by name: beside the recipe, above it, then edgecv's own."""
    return [base / "calibration", base.parent / "calibration", data_folder("calibration")]


def find_calibration(name_or_path: str, *, base: Path) -> Path:
    """The manifest's file.

    A name that ends in .yaml is a path relative to ``base`` (the recipe's folder); any other is
    looked for in `calibration_folders`.

    Raises:
        RecipeError: there is no such manifest.
    """
    if is_path(name_or_path):
        path = base / name_or_path
        if not path.is_file():
            raise RecipeError([Problem(str(path), None, "", "there is no such calibration manifest")])
        return path
    wrong = name_problem(name_or_path, what="calibration")
    folders = calibration_folders(base)
    if wrong is None:
        for folder in folders:
            if (folder / f"{name_or_path}.yaml").is_file():
                return folder / f"{name_or_path}.yaml"
        known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
        hint = did_you_mean(name_or_path, known)
        places = ", ".join(str(folder) for folder in dict.fromkeys(folders))
        wrong = (
            f"no calibration manifest {name_or_path!r}{hint}. Looked in {places}. "
            "Make one with `edgecv calibrate`, or write {source, samples} here"
        )
    raise RecipeError([Problem(name_or_path, None, "", wrong)])


def load_calibration(
    name_or_path: str, *, base: Path, env: Mapping[str, str] | None = None, check_files: bool = True
) -> CalibrationManifest:
    """Load a manifest; its ``source`` paths come back absolute.

    ``env`` replaces the environment for ``${NAME}`` at the start of a path; ``check_files=False``
    leaves the paths as they stand.

    Raises:
        RecipeError: no such manifest, or problems in it, all of them listed.
    """
    path = find_calibration(name_or_path, base=base)
    manifest = load_typed(path, CalibrationManifest, max_bytes=MAX_BYTES)
    found = _problems(manifest, stem=path.stem)
    if check_files:
        source, wrong = resolve_data(manifest.source, base=path.parent, env=os.environ if env is None else env)
        found += [(("source", *where), message) for where, message in wrong]
        manifest = dataclasses.replace(manifest, source=source)
    if found:
        document = read_yaml(path, max_bytes=MAX_BYTES)
        raise RecipeError([document.problem(where, message) for where, message in found])
    return manifest


def write_calibration(manifest: CalibrationManifest, path: Path) -> None:
    """Write a manifest as YAML that `load_calibration` reads; replaces the file in one step.

    Raises:
        RecipeError: the manifest is not one that could be read back (a bad hash, an absolute id).
    """
    plain = _plain(manifest)
    read_back, found = validate(CalibrationManifest, plain)
    if read_back is not None:
        found += _problems(read_back, stem=path.stem)
    if found:
        raise RecipeError([Problem(str(path), None, ".".join(map(str, where)), text) for where, text in found])
    text = to_yaml(plain)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _problems(manifest: CalibrationManifest, *, stem: str) -> list[Found]:
    found: list[Found] = []
    if manifest.name != stem:
        found.append((("name",), f"is {manifest.name!r}; it must be the file's name, {stem!r}"))
    seen: set[str] = set()
    for index, entry in enumerate(manifest.files):
        where = ("files", index, "id")
        if _leaves_folder(entry.id):
            found.append((where, f"is {entry.id!r}; ids are relative to the source and hold no '..'"))
        if entry.id in seen:
            found.append((where, f"{entry.id!r} is listed twice"))
        seen.add(entry.id)
    return found


def _leaves_folder(identifier: str) -> bool:
    windows = PureWindowsPath(identifier)
    parts = {*PurePosixPath(identifier).parts, *windows.parts}
    return identifier.startswith("/") or bool(windows.drive or windows.root) or ".." in parts


def _plain(manifest: CalibrationManifest) -> dict[str, Any]:
    """The manifest as lists and dicts; defaults of the source are left out."""
    plain = dataclasses.asdict(manifest)
    defaults = {f.name: f.default for f in dataclasses.fields(manifest.source)}
    plain["source"] = {key: value for key, value in plain["source"].items() if value != defaults.get(key)}
    plain["files"] = [dict(entry) for entry in plain["files"]]
    return plain
