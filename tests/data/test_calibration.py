"""Calibration manifests: made, written, found again, and refused when the pictures changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecv.core.calibration import CalibrationManifest
from edgecv.core.contract import InputContract
from edgecv.core.recipe import DataSpec
from edgecv.data.calibration import calibrate, make_manifest, open_calibration
from edgecv.data.digits import LICENCE, open_digits
from edgecv.data.lint import LintFinding
from edgecv.data.readers import open_reader
from edgecv.data.subset import SubsetReader
from edgecv.errors import ArtifactError, DataError, UsageError
from edgecv.recipe.calibration import load_calibration

from .conftest import Draw, encoded, picture

LABELS = ["cat", "dog", "hen"]
FOLDER = DataSpec(kind="imagefolder", path="data/set")


def make(
    base: Path, out: Path, contract: InputContract, **changes: Any
) -> tuple[CalibrationManifest, list[LintFinding]]:
    settings: dict[str, Any] = {
        "base": base,
        "labels": LABELS,
        "contract": contract,
        "samples": 12,
        "select": "stratified",
        "seed": 0,
        "name": "pets-12",
        "licence": "CC0",
        "out": out,
    }
    spec = changes.pop("spec", FOLDER)
    return calibrate(spec, **{**settings, **changes})


@pytest.fixture
def pets(draw: Draw, tmp_path: Path) -> Path:
    """The folder that paths are relative to; the pictures are in data/set."""
    draw({"cat": 10, "dog": 10, "hen": 2}, name="data/set")
    return tmp_path


def test_written_and_found_again(pets: Path, contract: InputContract) -> None:
    manifest, findings = make(pets, pets / "calibration" / "pets-12.yaml", contract)
    assert manifest.coverage == {"cat": 5, "dog": 5, "hen": 2}
    assert [finding.code for finding in findings] == ["too-few"]
    assert manifest.source.path == "../data/set"
    loaded = load_calibration("pets-12", base=pets)
    assert loaded.files == manifest.files
    reader = open_calibration(loaded, base=pets, labels=LABELS)
    assert list(reader.ids) == [file.id for file in manifest.files]
    assert [reader.sha256(index) for index in range(12)] == [file.sha256 for file in manifest.files]
    assert np.array_equal(reader[0].image, open_reader(FOLDER, base=pets, labels=LABELS)[0].image) == (
        reader.ids[0] == "cat/000.png"
    )
    raw = open_calibration(manifest, base=pets / "calibration", labels=LABELS)
    assert raw.fingerprint() == reader.fingerprint()


def test_out_may_be_a_folder_and_is_not_overwritten(pets: Path, contract: InputContract) -> None:
    make(pets, pets, contract)
    before = (pets / "pets-12.yaml").read_bytes()
    with pytest.raises(UsageError, match=r"pets-12\.yaml exists.*--force"):
        make(pets, pets, contract, seed=1)
    assert (pets / "pets-12.yaml").read_bytes() == before
    make(pets, pets, contract, seed=1, force=True)
    assert (pets / "pets-12.yaml").read_bytes() != before
    assert [path.name for path in pets.iterdir() if path.is_file()] == ["pets-12.yaml"]


def test_wrong_names(pets: Path, contract: InputContract) -> None:
    with pytest.raises(UsageError, match=r"must be named pets-12\.yaml"):
        make(pets, pets / "other.yaml", contract)
    with pytest.raises(DataError, match="name is 'Pets 12'; allowed"):
        make(pets, pets, contract, name="Pets 12")
    with pytest.raises(DataError, match="no licence"):
        make(pets, pets, contract, licence=" ")


def test_unfit_set_is_not_written(pets: Path, contract: InputContract) -> None:
    with pytest.raises(DataError, match="too-few: 3 pictures"):
        make(pets, pets, contract, samples=3)
    with pytest.raises(DataError, match=r"leak: 12 of 12 pictures \(100%\)"):
        make(pets, pets, contract, evaluation=FOLDER)
    assert not (pets / "pets-12.yaml").exists()


def test_broken_pictures_are_never_picked(broken: Path, contract: InputContract) -> None:
    for index in range(2, 9):
        (broken / "cat" / f"{index:03d}.png").write_bytes(encoded(picture(index)))
    spec = DataSpec(kind="imagefolder", path="set")
    manifest, _ = make(broken.parent, broken.parent, contract, spec=spec, labels=["cat"], samples=9)
    assert [file.id for file in manifest.files] == [f"cat/{index:03d}.png" for index in range(9)]


def test_changed_pictures_are_named(pets: Path, contract: InputContract) -> None:
    manifest, _ = make(pets, pets, contract)
    data = pets / "data" / "set"
    names = [file.id for file in manifest.files]
    (data / names[0]).write_bytes(encoded(picture(99)))
    (data / names[1]).unlink()
    (data / names[2]).write_bytes(b"")
    with pytest.raises(ArtifactError) as caught:
        open_calibration(manifest, base=pets, labels=LABELS)
    message = str(caught.value)
    assert "pets-12: 3 of 12 pictures" in message
    assert f"{names[0]} was changed" in message
    assert f"{names[1]} is missing" in message
    assert f"{names[2]}: the file is empty" in message
    assert caught.value.exit_code == 6


def test_only_the_first_five_are_named(pets: Path, contract: InputContract) -> None:
    manifest, _ = make(pets, pets, contract)
    for file in manifest.files:
        (pets / "data" / "set" / file.id).write_bytes(encoded(picture(99)))
    with pytest.raises(ArtifactError, match=r"12 of 12 .*; and 7 more\. Bring") as caught:
        open_calibration(manifest, base=pets, labels=LABELS)
    assert str(caught.value).count("was changed") == 5


def test_other_broken_files_do_not_matter(pets: Path, contract: InputContract) -> None:
    manifest, _ = make(pets, pets, contract)
    (pets / "data" / "set" / "cat" / "zzz.png").write_bytes(b"")
    assert len(open_calibration(manifest, base=pets, labels=LABELS)) == 12


def test_all_pictures_gone(pets: Path, contract: InputContract) -> None:
    manifest, _ = make(pets, pets, contract)
    for path in (pets / "data" / "set").glob("*/*.png"):
        path.unlink()
    (pets / "data" / "set" / "cat" / "new.png").write_bytes(encoded(picture(1)))
    with pytest.raises(ArtifactError, match="12 of 12 pictures"):
        open_calibration(manifest, base=pets, labels=LABELS)


def test_source_of_csv_is_moved_too(pets: Path, contract: InputContract) -> None:
    rows = "".join(f"{path.relative_to(pets / 'data')},0\n" for path in sorted((pets / "data").rglob("*.png")))
    (pets / "lists").mkdir()
    (pets / "lists" / "set.csv").write_text("file,label\n" + rows)
    spec = DataSpec(kind="csv", path="lists/set.csv", root="data")
    manifest, _ = make(pets, pets / "deep" / "er" / "pets-12.yaml", contract, spec=spec, labels=["any"])
    assert (manifest.source.path, manifest.source.root) == ("../../lists/set.csv", "../../data")
    assert len(open_calibration(manifest, base=pets / "deep" / "er", labels=["any"])) == 12
    absolute = DataSpec(kind="imagefolder", path=str(pets / "data" / "set"))
    assert make(pets, pets, contract, spec=absolute)[0].source == absolute


def test_manifest_needs_pictures(digit_labels: Sequence[str]) -> None:
    reader = open_digits(split="train", labels=digit_labels, limit=None)
    with pytest.raises(DataError, match="no picture"):
        make_manifest(
            reader,
            [],
            name="none",
            source=DataSpec(kind="sklearn-digits"),
            licence="CC0",
            labels=digit_labels,
            select="random",
            seed=0,
        )


def test_subset_keeps_its_order(digit_labels: Sequence[str]) -> None:
    whole = open_digits(split="train", labels=digit_labels, limit=None)
    subset = SubsetReader(whole, [7, 3])
    assert (len(subset), list(subset.ids)) == (2, [whole.ids[7], whole.ids[3]])
    assert [subset[0].id, subset[1].id] == list(subset.ids)
    assert subset.sha256(1) == whole.sha256(3)
    assert list(subset.truths) == [whole.truths[7], whole.truths[3]]
    assert subset.fingerprint() != SubsetReader(whole, [3, 7]).fingerprint()


def test_shipped_digits_manifest(root: Path, tmp_path: Path, digit_labels: Sequence[str], gray: InputContract) -> None:
    """It opens, its hashes hold, and the same settings make the same file."""
    shipped = root / "calibration" / "digits-128.yaml"
    manifest = load_calibration(str(shipped), base=tmp_path)
    assert len(open_calibration(manifest, base=tmp_path, labels=digit_labels)) == 128
    again, findings = calibrate(
        manifest.source,
        base=tmp_path,
        labels=digit_labels,
        contract=gray,
        samples=128,
        select=manifest.select,
        seed=manifest.seed,
        name=manifest.name,
        licence=LICENCE,
        out=tmp_path,
        evaluation=DataSpec(kind="sklearn-digits", split="test"),
    )
    assert again == manifest
    assert (tmp_path / shipped.name).read_text() == shipped.read_text()
    assert findings == []
