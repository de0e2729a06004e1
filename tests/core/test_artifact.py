"""The artifact's manifest: written whole, read with distrust."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgecv.core import artifact
from edgecv.core.artifact import (
    MANIFEST,
    Chain,
    FileEntry,
    Manifest,
    check_files,
    file_entries,
    files_hash,
    read_manifest,
    safe_path,
    sha256_file,
    write_manifest,
)
from edgecv.core.contract import InputContract
from edgecv.core.recipe import FamilySpec
from edgecv.core.tensor import Quantization, TensorSpec
from edgecv.errors import ArtifactError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact with a model file and a folder beside it."""
    place = tmp_path / "artifact"
    (place / "data").mkdir(parents=True)
    (place / "model.bin").write_bytes(b"weights" * 1000)
    (place / "data" / "b.txt").write_text("b")
    (place / "data" / "a.txt").write_text("a")
    write_manifest(place, manifest_of(place))
    return place


def manifest_of(folder: Path) -> Manifest:
    entries = file_entries(folder, ["model.bin", "data"])
    return Manifest(
        name="tiny",
        target="host",
        backend="null",
        precision="int8",
        status="ready",
        family=FamilySpec(kind="classification", labels=("a", "b")),
        contract=InputContract(size=(4, 6), mean=(0.1, 0.2, 0.3), range=(-1.0, 1.0)),
        inputs=(TensorSpec("x", (1, 3, 4, 6), "int8", "NCHW", Quantization(1 / 3, -5)),),
        outputs=(TensorSpec("y", (1, 2), "float32", "NC"),),
        model="model.bin",
        files=entries,
        chain=Chain(recipe="1" * 64, file=files_hash(entries)),
        engine_options={"deep": {"list": [1, 2.5, None, True, "x"]}},
        threads=3,
        thermal=({"name": "cpu", "throttle_c": 80.0},),
        thresholds={"score": 0.25},
        notes=("a note", "another, with ü"),
    )


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest on disk as somebody else would, without our writer."""
    raw = json.loads((folder / MANIFEST).read_text())
    change(raw)
    (folder / MANIFEST).write_text(json.dumps(raw))


def test_round_trip_is_exact(folder: Path) -> None:
    assert read_manifest(folder) == manifest_of(folder)
    check_files(folder, read_manifest(folder))


def test_writing_twice_gives_the_same_bytes_and_no_leftovers(folder: Path) -> None:
    before = (folder / MANIFEST).read_bytes()
    write_manifest(folder, read_manifest(folder))
    assert (folder / MANIFEST).read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["data", MANIFEST, "model.bin"]


def test_a_failed_write_keeps_the_old_manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: object, target: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(artifact.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_manifest(folder, replace(manifest_of(folder), name="new"))
    assert read_manifest(folder).name == "tiny"


def test_hashes(folder: Path) -> None:
    path = folder / "model.bin"
    assert sha256_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    big = folder / "big"
    big.write_bytes(b"x" * (3 * (1 << 20) + 17))  # more than one piece
    assert sha256_file(big) == hashlib.sha256(big.read_bytes()).hexdigest()
    entries = file_entries(folder, ["data", "model.bin"])
    assert [entry.path for entry in entries] == ["data/a.txt", "data/b.txt", "model.bin"]
    assert files_hash(entries) == files_hash(entries[::-1])
    assert files_hash(entries) != files_hash(entries[:2])
    assert files_hash((replace(entries[0], path="data/c.txt"), *entries[1:])) != files_hash(entries)


def test_model_bytes(folder: Path) -> None:
    manifest = manifest_of(folder)
    assert manifest.model_bytes == 7000
    assert replace(manifest, model="data").model_bytes == 2
    assert replace(manifest, model="data/").model_bytes == 2
    assert replace(manifest, model="dat").model_bytes == 0


def test_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not an artifact: it has no manifest\.json"):
        read_manifest(tmp_path)
    with pytest.raises(ArtifactError):
        read_manifest(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError):
        read_manifest(tmp_path / "file")
    (tmp_path / "odd" / MANIFEST).mkdir(parents=True)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_manifest(tmp_path / "odd")


def test_every_truncation_is_refused(folder: Path) -> None:
    whole = (folder / MANIFEST).read_bytes()
    for length in range(0, len(whole) - 2, 7):
        (folder / MANIFEST).write_bytes(whole[:length])
        with pytest.raises(ArtifactError):
            read_manifest(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b"[" * 200_000,
        b'{"schema": 1}',
        b'{"schema": 1, "family": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"\x00" * 64,
    ],
    ids=["no-utf8", "null", "list", "text", "empty", "deep", "bare", "deep-inside", "zeros"],
)
def test_rubbish_is_refused(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError):
        read_manifest(folder)


def test_huge_manifest_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (folder / MANIFEST).stat().st_size
    monkeypatch.setattr(artifact, "MAX_MANIFEST_BYTES", size - 1)
    monkeypatch.setattr(artifact.json, "loads", lambda text: pytest.fail("it was read"))
    with pytest.raises(ArtifactError, match=f"{size} bytes; allowed are {size - 1}"):
        read_manifest(folder)


def test_other_schema(folder: Path) -> None:
    edit(folder, lambda raw: raw.update(schema=99))
    with pytest.raises(ArtifactError, match="schema 99; this edgecv reads 1"):
        read_manifest(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.pop("family"),
        lambda raw: raw.pop("files"),
        lambda raw: raw.update(surprise=1),
        lambda raw: raw.update(files=[]),
        lambda raw: raw.update(files={}),
        lambda raw: raw.update(files=[{"path": "model.bin"}]),
        lambda raw: raw.update(status="maybe"),
        lambda raw: raw.update(threads="3"),
        lambda raw: raw.update(name=None),
        lambda raw: raw["inputs"][0].update(shape=[1, -3]),
        lambda raw: raw["inputs"][0].update(dtype="object_"),
        lambda raw: raw["inputs"][0].update(dtype="no such type"),
        lambda raw: raw["inputs"][0]["quantization"].update(scale=0.0),
        lambda raw: raw["inputs"][0]["quantization"].update(scale="small"),
        lambda raw: raw["contract"].update(size=[4]),
        lambda raw: raw["contract"].update(color="pink"),
        lambda raw: raw["files"][0].update(bytes=1.5),
        lambda raw: raw.update(model="other.bin"),
    ],
)
def test_damaged_fields_are_refused(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    edit(folder, change)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        read_manifest(folder)


OUTSIDE = [
    "/etc/passwd",
    "../secret",
    "data/../../secret",
    "..",
    "",
    "C:/windows",
    "C:windows",
    "..\\secret",
    "data\\..\\..\\secret",
    "nul\0byte",
    "\ud800",
    "x" * 300,
    "long/" * 500,
    ".",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_paths_outside_are_refused(folder: Path, path: str) -> None:
    (folder.parent / "secret").write_text("secret")
    edit(folder, lambda raw: raw["files"][0].update(path=path))
    with pytest.raises(ArtifactError):
        check_files(folder, read_manifest(folder))
    with pytest.raises(ArtifactError):
        safe_path(folder, path)


@pytest.mark.parametrize("path", OUTSIDE)
def test_models_outside_are_refused(folder: Path, path: str) -> None:
    edit(folder, lambda raw: raw.update(model=path))
    with pytest.raises(ArtifactError):
        read_manifest(folder)


def test_paths_inside_are_fine(folder: Path) -> None:
    for path in ("model.bin", "data/a.txt", "./model.bin", "data/..hidden"):
        assert safe_path(folder, path) == folder / path


def test_links_that_leave_are_refused(folder: Path) -> None:
    secret = folder.parent / "secret"
    secret.write_text("a")
    (folder / "data" / "a.txt").unlink()
    (folder / "data" / "a.txt").symlink_to(secret)  # same size and content: the hash would not notice
    with pytest.raises(ArtifactError, match="link that leaves"):
        read_manifest(folder)


def test_folder_links_that_leave_are_refused(folder: Path) -> None:
    moved = folder.parent / "moved"
    (folder / "data").rename(moved)
    (folder / "data").symlink_to(moved)
    with pytest.raises(ArtifactError, match="link that leaves"):
        read_manifest(folder)


def test_circles_of_links_are_refused(folder: Path) -> None:
    (folder / "model.bin").unlink()
    (folder / "model.bin").symlink_to(folder / "model.bin")
    with pytest.raises(ArtifactError):
        check_files(folder, read_manifest(folder))


def test_links_inside_and_to_the_artifact_are_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "data" / "a.txt").unlink()
    (folder / "data" / "real").write_text("a")
    (folder / "data" / "a.txt").symlink_to("real")
    link = tmp_path / "latest"
    link.symlink_to(folder)
    check_files(link, read_manifest(link))


def test_check_files_lists_everything_that_is_wrong(folder: Path) -> None:
    (folder / "model.bin").write_bytes(b"short")
    (folder / "data" / "a.txt").unlink()
    (folder / "data" / "b.txt").write_text("c")
    with pytest.raises(ArtifactError) as caught:
        check_files(folder, read_manifest(folder))
    text = str(caught.value)
    assert "model.bin has 5 bytes, the manifest says 7000" in text
    assert "data/a.txt is missing" in text
    assert "data/b.txt was changed" in text


def test_one_changed_bit_is_found(folder: Path) -> None:
    path = folder / "model.bin"
    content = bytearray(path.read_bytes())
    content[3456] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactError, match=r"model\.bin was changed"):
        check_files(folder, read_manifest(folder))


def test_folder_in_place_of_a_file(folder: Path) -> None:
    (folder / "model.bin").unlink()
    (folder / "model.bin").mkdir()
    with pytest.raises(ArtifactError, match=r"model\.bin is missing"):
        check_files(folder, read_manifest(folder))


def test_file_entry_holds_plain_facts(folder: Path) -> None:
    (entry,) = file_entries(folder, ("model.bin",))
    assert entry == FileEntry("model.bin", 7000, sha256_file(folder / "model.bin"))
