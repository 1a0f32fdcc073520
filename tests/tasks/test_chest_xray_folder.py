"""A folder of chest X-rays as hospitals have it: found where it lies, read by content, told file by file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from structlog.testing import capture_logs

from fednode.core.data_report import DataReport
from fednode.errors import DataError
from fednode.tasks.chest_xray_folder import XrayFolder, held_back, look, patient_of, usable
from fednode.tasks.picture_cache import PictureCache
from xray_scene import draw, fill


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> PictureCache:
    return PictureCache(16, tmp_path_factory.mktemp("cache"))


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
    (folder / "IM000001").write_bytes(b"\0" * 128 + b"DICM")       # as scanners call them
    for kind in ("gif", "tiff", "avif", "webp"):
        Image.new("L", (24, 24)).save(folder / f"other.{kind}")
    (folder / "a-gif-without-an-ending").write_bytes((folder / "other.gif").read_bytes())
    (folder / "gone.jpeg").symlink_to(tmp_path / "nowhere")
    Image.new("1", (30_000, 30_000)).save(folder / "huge.png")
    os.mkfifo(folder / "pipe.jpeg")
    os.mkfifo(folder / "pipe")
    draw(folder / "deeper" / "inside.jpeg", 201)
    found = look(tmp_path, cache)
    skipped = {Path(file.path).name: file.reason for file in found.report.skipped}
    assert set(skipped) == {
        "cut.jpeg", "empty.png", "text.jpeg", "scan.dcm", "gone.jpeg", "huge.png", "pipe.jpeg", "IM000001",
        "other.gif", "other.tiff", "other.avif", "other.webp", "a-gif-without-an-ending",
    }
    for name, kind in (("IM000001", "DICOM"), ("other.gif", "GIF"), ("other.avif", "AVIF"), ("other.tiff", "TIFF")):
        assert skipped[name] == f"its content is neither JPEG nor PNG, but {kind}"
    assert all(skipped.values())
    assert "chest_xray/train/PNEUMONIA/cut.jpeg" in [file.path for file in found.report.skipped]
    assert counts(found) == SOUND
    assert found.report.fatal is None


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
    assert found.report.fatal is not None
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
    assert [(line["event"], line.get("path")) for line in logged] == [
        ("chest_xray.skipped", "train/NORMAL/broken.jpeg"), ("chest_xray.skipped_in_all", None),
    ]


def test_a_hundred_copies_are_named_in_the_report_and_counted_in_the_log(tmp_path, cache) -> None:
    fill(tmp_path, each=12)
    shutil.rmtree(tmp_path / "test")
    (tmp_path / "test").symlink_to("train")
    with capture_logs() as logged:
        found = usable(tmp_path, cache)
    assert codes(found) == ["leak"] * 24
    assert [line["event"] for line in logged] == ["chest_xray.leak"] * 11
    assert logged[-1]["num_more"] == 14


def test_names_in_no_encoding_and_with_line_breaks_are_told_on_one_line(tmp_path, cache) -> None:
    fill(tmp_path)
    folder = os.fsencode(tmp_path / "train" / "NORMAL")
    whole = next((tmp_path / "train" / "NORMAL").iterdir()).read_bytes()
    names = (b"caf\xe9.jpeg", b"two\nlines.jpeg", b"\x1b[31mred.png")
    for name in names:
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(b"no image")
        Path(os.fsdecode(folder + b"/good-" + name)).write_bytes(whole)
    odd = Path(os.fsdecode(os.fsencode(tmp_path / "train") + b"/caf\xe9"))
    odd.mkdir()
    with capture_logs() as logged:
        found = usable(tmp_path, cache)
    assert counts(found)["train"] == {"NORMAL": 6, "PNEUMONIA": 3}
    assert [file.path for file in found.report.skipped] == [
        "train/NORMAL/\x1b[31mred.png", "train/NORMAL/caf\\xe9.jpeg", "train/NORMAL/two\nlines.jpeg",
    ]
    assert DataReport.from_json(json.loads(json.dumps(found.report.to_json()))) == found.report
    told = [*(problem.message for problem in found.report.problems), *(line.get("path", "") for line in logged)]
    assert all(text.isprintable() and text.encode() is not None for text in told)
    assert "train/NORMAL/two\\nlines.jpeg" in told


def test_links_are_followed_and_a_link_to_nowhere_takes_nothing_else_along(tmp_path, cache) -> None:
    fill(tmp_path / "store" / "chest_xray")
    data = tmp_path / "data"
    (data / "train").mkdir(parents=True)
    (data / "test").symlink_to(tmp_path / "store" / "chest_xray" / "test")
    (data / "train" / "Normal").symlink_to(tmp_path / "store" / "chest_xray" / "train" / "NORMAL")
    (data / "train" / "PNEUMONIA").mkdir()
    for image in (tmp_path / "store" / "chest_xray" / "train" / "PNEUMONIA").iterdir():
        (data / "train" / "PNEUMONIA" / image.name).symlink_to(image)
    for place, target in (("round", "round"), ("endless", "x" * 300), ("up", "../..")):
        (data / "train" / "PNEUMONIA" / place).symlink_to(target)
        (data / f"{place}").symlink_to(target)
    (data / "train" / "PNEUMONIA" / "round.jpeg").symlink_to("round.jpeg")
    (data / "train" / "PNEUMONIA" / "null.jpeg").symlink_to("/dev/null")
    found = look(data, cache)
    assert (counts(found), codes(found)) == (SOUND, [])
    assert {Path(file.path).name for file in found.report.skipped} == {"round.jpeg", "null.jpeg"}


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, for whom permissions hold")
def test_what_this_user_may_not_read_is_told_and_the_rest_is_used(tmp_path, cache) -> None:
    fill(tmp_path)
    secret = next((tmp_path / "train" / "NORMAL").iterdir())
    secret.chmod(0o000)
    (tmp_path / "locked" / "inner").mkdir(parents=True)
    (tmp_path / "train" / "NORMAL" / "elsewhere").symlink_to(tmp_path / "locked" / "inner" / "x")
    (tmp_path / "locked").chmod(0o000)
    (tmp_path / "test" / "PNEUMONIA").chmod(0o000)
    with other_user(tmp_path):
        found = look(Path(), PictureCache(16, Path("no-cache-here")))
    assert [(file.path, file.reason) for file in found.report.skipped] == [
        (f"train/NORMAL/{secret.name}", "cannot be opened: Permission denied")
    ]
    assert codes(found) == ["unreadable", "no_images"]
    assert "test/PNEUMONIA cannot be read: Permission denied" in found.report.problems[0].message
    assert counts(found) == {"train": {"NORMAL": 2, "PNEUMONIA": 3}, "test": {"NORMAL": 3, "PNEUMONIA": 0}}


@contextmanager
def other_user(folder: Path) -> Iterator[None]:
    """Nobody, who is in this folder already: the way to it may be closed to others."""
    folder.chmod(0o755)
    before = Path.cwd()
    os.chdir(folder)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.chdir(before)


def test_few_patients_are_still_enough_for_each_site_that_shares_the_folder(tmp_path, cache) -> None:
    fill(tmp_path, each=4)
    found = look(tmp_path, cache)
    for num_sites in (1, 3):
        val = {image.patient for image in found.split("val", num_sites)}
        assert len(val) == {1: 2, 3: 4}[num_sites]
        assert val.isdisjoint(image.patient for image in found.split("train", num_sites))


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
