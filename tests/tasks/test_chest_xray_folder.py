"""A folder of chest X-rays as hospitals have it: found where it lies, read by content, told file by file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from structlog.testing import capture_logs

from fednode.errors import DataError
from fednode.tasks.chest_xray_folder import CLASSES, XrayFolder, held_back, look, patient_of, usable
from fednode.tasks.picture_cache import PictureCache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> PictureCache:
    return PictureCache(16, tmp_path_factory.mktemp("cache"))


def draw(path: Path, number: int, kind: str = "") -> Path:
    """A picture like no other number's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("L", (24, 24), 40)
    for bit in range(12):
        if number >> bit & 1:
            picture.paste(200, (2 * bit, 0, 2 * bit + 2, 24))
    picture.save(path, kind or None, **({"quality": 95} if path.suffix == ".jpeg" and kind != "PNG" else {}))
    return path


def fill(
    root: Path, splits: Sequence[str] = ("train", "test"), classes: Sequence[str] = CLASSES, each: int = 3
) -> Path:
    """A sound folder: `each` images of as many patients in every class of every split."""
    number = 1
    for split in splits:
        for name in classes:
            for _ in range(each):
                stem = f"IM-{number:04}-0001" if name.upper() == "NORMAL" else f"person{number}_virus_{number}"
                draw(root / split / name / f"{stem}.jpeg", number)
                number += 1
    return root


def codes(found: XrayFolder) -> list[str]:
    return [problem.code for problem in found.report.problems]


def counts(found: XrayFolder) -> dict[str, dict[str, int]]:
    return {split: dict(of) for split, of in found.report.splits.items()}


SOUND = {"train": {"NORMAL": 3, "PNEUMONIA": 3}, "test": {"NORMAL": 3, "PNEUMONIA": 3}}


@pytest.mark.parametrize("place", [".", "chest_xray", "chest_xray/chest_xray", "Chest_XRay"])
def test_the_folder_is_found_wherever_people_have_it(place: str, tmp_path: Path, cache: PictureCache) -> None:
    fill(tmp_path / place)
    found = look(tmp_path, cache)
    assert (counts(found), codes(found), found.report.skipped) == (SOUND, [], ())


def test_the_kaggle_archive_is_read_once_with_its_val_folder_and_without_its_junk(tmp_path, cache) -> None:
    fill(tmp_path / "chest_xray", ("train", "test", "val"))
    shutil.copytree(tmp_path / "chest_xray", tmp_path / "copy")
    (tmp_path / "copy").rename(tmp_path / "chest_xray" / "chest_xray")
    (tmp_path / "chest_xray" / "__MACOSX" / "train").mkdir(parents=True)
    for junk in (".DS_Store", "._IM-0001-0001.jpeg", "Thumbs.db", "notes.txt", "desktop.ini"):
        (tmp_path / "chest_xray" / "train" / "NORMAL" / junk).write_bytes(b"\0\5\x16\7")
    found = look(tmp_path, cache)
    assert counts(found) == {**SOUND, "val": {"NORMAL": 3, "PNEUMONIA": 3}}
    assert (codes(found), found.report.skipped) == ([], ())
    assert len(found.split("train")) + len(found.split("val")) == 12       # what was taken from train is train


def test_classes_in_any_case_and_images_of_any_name_and_ending(tmp_path, cache) -> None:
    fill(tmp_path, classes=("Normal", "pneumonia"))
    folder = tmp_path / "train" / "Normal"
    draw(folder / "a.JPG", 100, "JPEG")
    draw(folder / "b.png", 101)
    draw(folder / "called-jpeg.jpeg", 102, "PNG")
    draw(folder / "without-an-ending", 103, "PNG")
    assert counts(look(tmp_path, cache))["train"]["NORMAL"] == 7


def test_every_file_that_cannot_be_used_is_named_with_its_reason(tmp_path, cache) -> None:
    fill(tmp_path / "chest_xray")
    folder = tmp_path / "chest_xray" / "train" / "PNEUMONIA"
    whole = draw(tmp_path / "whole.jpeg", 200).read_bytes()
    (folder / "cut.jpeg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "text.jpeg").write_text("this is no image")
    (folder / "scan.dcm").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "gone.jpeg").symlink_to(tmp_path / "nowhere")
    Image.new("1", (30_000, 30_000)).save(folder / "huge.png")
    os.mkfifo(folder / "pipe.jpeg")
    os.mkfifo(folder / "pipe")
    draw(folder / "deeper" / "inside.jpeg", 201)
    found = look(tmp_path, cache)
    skipped = {Path(file.path).name: file.reason for file in found.report.skipped}
    assert set(skipped) == {"cut.jpeg", "empty.png", "text.jpeg", "scan.dcm", "gone.jpeg", "huge.png", "pipe.jpeg"}
    assert all(skipped.values())
    assert found.report.skipped[0].path == "chest_xray/train/PNEUMONIA/cut.jpeg"
    assert counts(found) == SOUND
    assert found.report.is_usable


def test_a_third_class_folder_is_a_problem_and_is_left_out(tmp_path, cache) -> None:
    fill(tmp_path)
    draw(tmp_path / "train" / "COVID" / "c.jpeg", 300)
    found = look(tmp_path, cache)
    assert codes(found) == ["unknown_class"]
    assert "COVID" in found.report.problems[0].message
    assert counts(found) == SOUND


def test_copies_stay_usable_and_are_told_for_what_they_are(tmp_path, cache) -> None:
    fill(tmp_path)
    first = next((tmp_path / "train" / "NORMAL").iterdir())
    shutil.copy(first, first.with_name("copy.jpeg"))
    second = next((tmp_path / "train" / "PNEUMONIA").iterdir())
    shutil.copy(second, tmp_path / "test" / "PNEUMONIA" / "leak.jpeg")
    third = next((tmp_path / "test" / "NORMAL").iterdir())
    shutil.copy(third, tmp_path / "test" / "PNEUMONIA" / "conflict.jpeg")
    found = look(tmp_path, cache)
    told = {problem.code: problem.message for problem in found.report.problems}
    assert set(told) == {"duplicate", "leak", "label_conflict"}
    assert "copy.jpeg" in told["duplicate"]
    assert "leak.jpeg" in told["leak"]
    assert "conflict.jpeg" in told["label_conflict"]
    assert counts(found) == {"train": {"NORMAL": 4, "PNEUMONIA": 3}, "test": {"NORMAL": 3, "PNEUMONIA": 5}}
    assert found.report.skipped == ()


@pytest.mark.parametrize(("prepare", "code", "words"), [
    (lambda data: None, "no_folder", "chest_xray"),
    (lambda data: shutil.rmtree(data), "no_folder", "is not there"),
    (lambda data: fill(data, ("train",)), "no_test", "test/NORMAL"),
    (lambda data: fill(data, ("test",)), "no_train", "train/NORMAL"),
    (lambda data: fill(data, each=1), "too_few_patients", "two patients"),
])
def test_what_cannot_be_trained_is_said_before_it_starts(prepare, code, words, tmp_path, cache) -> None:
    data = tmp_path / "data"
    data.mkdir()
    prepare(data)
    found = look(data, cache)
    assert codes(found)[0] == code
    assert not found.report.is_usable
    with pytest.raises(DataError, match=words) as raised:
        usable(data, cache)
    assert raised.value.fix


def test_a_hospital_that_has_seen_one_class_only_may_take_part(tmp_path, cache) -> None:
    fill(tmp_path, classes=("PNEUMONIA",))
    found = usable(tmp_path, cache)
    assert codes(found) == ["no_images", "no_images"]
    assert "NORMAL" in found.report.problems[0].message
    assert {image.label for image in found.images} == {1}


def test_skipped_files_are_named_in_the_log(tmp_path, cache) -> None:
    fill(tmp_path)
    (tmp_path / "train" / "NORMAL" / "broken.jpeg").write_bytes(b"no image")
    with capture_logs() as logged:
        usable(tmp_path, cache)
    assert [(line["event"], line["path"]) for line in logged] == [
        ("chest_xray.skipped", "train/NORMAL/broken.jpeg")
    ]


@pytest.mark.parametrize(("name", "patient"), [
    ("person12_bacteria_3.jpeg", "person12"), ("person12_virus_4.jpeg", "person12"), ("person1_virus_4.jpg", "person1"),
    ("IM-0115-0001.jpeg", "im-0115"), ("NORMAL2-IM-0115-0001-0002.jpeg", "im-0115"), ("scan7.png", "scan7.png"),
])
def test_the_patient_is_in_the_name(name: str, patient: str) -> None:
    assert patient_of(name) == patient


def test_a_patient_is_held_back_whole_and_stays_so_when_others_join(tmp_path, cache) -> None:
    fill(tmp_path, each=20)
    for image in list((tmp_path / "train" / "NORMAL").iterdir()):
        draw(image.with_name(image.name.replace("0001.jpeg", "0002.jpeg")), 1000 + int(image.name[3:7]))
    found = look(tmp_path, cache)
    train, val = ({image.patient for image in found.split(split)} for split in ("train", "val"))
    assert not train & val
    assert len(val) == 4
    healthy = [image for image in found.images if image.label == 0]
    assert held_back(healthy) == val & {image.patient for image in healthy}
