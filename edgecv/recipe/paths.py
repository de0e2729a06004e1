"""Paths in a recipe: relative to its folder, absolute, or behind ``${NAME}`` of the environment."""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from edgecv.core.kinds import data_facts
from edgecv.core.recipe import DataSpec
from edgecv.recipe.typed import Found, part
from edgecv.recipe.yaml_lines import KeyPath

Wanted = Literal["file", "folder", "pictures", "videos", "truth"]
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand(text: str, *, base: Path, env: Mapping[str, str]) -> tuple[Path | None, str | None]:
    """The absolute path that ``text`` means, and what is wrong with it, if anything.

    A relative path is relative to ``base``. ``${NAME}`` at the start stands for the environment
    variable, so that a recipe can name data that lies elsewhere on each machine.
    """
    match = _VARIABLE.match(text)
    if match:
        name = match.group(1)
        if not env.get(name):
            return None, (
                f"is {text!r}, and the environment variable {name} is not set; "
                f"set it to the folder that it stands for (export {name}=/path/to/it), or write the path here"
            )
        text = env[name] + text[match.end() :]
    if not text.strip():
        return None, "is empty; write a path"
    return Path(os.path.abspath(base / text)), None


def path_problem(text: str, path: Path, *, wanted: Wanted) -> str | None:
    """Why ``path`` (written as ``text``) is not the wanted existing file or folder.

    ``pictures`` are a folder or a glob, ``videos`` a file, a folder or a glob, ``truth`` a folder or a path with
    ``{stem}`` in it; what they match is only looked at when it is used.
    """
    if wanted == "truth":
        if "{stem}" in text:
            path = Path(str(path).partition("{stem}")[0] + "_").parent
        wanted = "folder"
    if wanted in ("pictures", "videos") and glob.has_magic(text):
        return None
    wanted = "folder" if wanted == "pictures" else wanted
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError) as error:
        return f"is {text[:60]!r}, which cannot be a path here: {error}"
    if (is_file and wanted in ("file", "videos")) or (is_folder and wanted in ("folder", "videos")):
        return None
    if is_file or is_folder:
        return f"is {text!r}, which is a {'file' if is_file else 'folder'}; a {wanted} is needed ({path})"
    what = "video or folder of videos" if wanted == "videos" else wanted
    return f"is {text!r}; there is no such {what}: {path}"


def resolve_paths(plain: dict[str, Any], *, base: Path, env: Mapping[str, str]) -> tuple[dict[str, Any], list[Found]]:
    """A copy of a recipe's values with absolute paths, and a problem for each path that is missing.

    Looks at the plain values, so that a missing file is found beside problems of other kinds.
    """
    found: list[Found] = []
    model = plain.get("model")
    if isinstance(model, dict):
        model = {**model}
        source = model.get("source")
        if isinstance(source, str) and source.startswith("onnx:"):
            resolved = _resolve(source[5:], ("model", "source"), "file", base=base, env=env, found=found)
            model["source"] = source if resolved is None else f"onnx:{resolved}"
        weights = model.get("weights")
        if isinstance(weights, dict) and isinstance(weights.get("path"), str):
            where: KeyPath = ("model", "weights", "path")
            resolved = _resolve(weights["path"], where, "file", base=base, env=env, found=found)
            model["weights"] = {**weights, "path": resolved or weights["path"]}
        plain = {**plain, "model": model}
    data = plain.get("data")
    if isinstance(data, dict):
        data = {**data}
        for name in ("eval", "train", "validation", "unlabelled"):
            if isinstance(data.get(name), dict):
                data[name] = _resolve_data(data[name], ("data", name), base=base, env=env, found=found)
        calibration = data.get("calibration")
        if isinstance(calibration, dict) and isinstance(calibration.get("source"), dict):
            place: KeyPath = ("data", "calibration", "source")
            source_data = _resolve_data(calibration["source"], place, base=base, env=env, found=found)
            data["calibration"] = {**calibration, "source": source_data}
        plain = {**plain, "data": data}
    return plain, found


def resolve_data(spec: DataSpec, *, base: Path, env: Mapping[str, str]) -> tuple[DataSpec, list[Found]]:
    """``spec`` with absolute paths, and a problem for each path that is missing."""
    found: list[Found] = []
    plain = _resolve_data(dataclasses.asdict(spec), (), base=base, env=env, found=found)
    return part(DataSpec, plain) or spec, found


def _resolve_data(
    spec: dict[str, Any], where: KeyPath, *, base: Path, env: Mapping[str, str], found: list[Found]
) -> dict[str, Any]:
    done = {**spec}
    for key, wanted in _path_keys(spec.get("kind")):
        text = spec.get(key)
        if isinstance(text, str):
            done[key] = _resolve(text, (*where, key), wanted, base=base, env=env, found=found) or text
    return done


def _path_keys(kind: Any) -> Iterator[tuple[str, Wanted]]:
    facts = data_facts(kind)
    if facts is None or facts.path == "none":
        return
    yield "path", facts.path
    if facts.root:
        yield "root", "folder"
    if facts.truth:
        yield "truth", "truth"


def _resolve(
    text: str, where: KeyPath, wanted: Wanted, *, base: Path, env: Mapping[str, str], found: list[Found]
) -> str | None:
    path, wrong = expand(text, base=base, env=env)
    if path is not None:
        wrong = path_problem(text, path, wanted=wanted)
    if wrong is not None:
        found.append((where, wrong))
        return None
    return str(path)
