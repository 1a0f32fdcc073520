"""The examples as their READMEs tell them: each folder is copied, and its page typed from the first block on."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from fednode import DataError
from fednode.tasks.base import Partition, Site
from fednode.tasks.registry import load_task
from pages_of_docs import ROOT, Reader

EXAMPLES = ROOT / "examples"
FOLDERS = sorted(page.parent for page in EXAMPLES.glob("*/README.md"))
NO_DATA_OF_ITS_OWN = {"fedbn", "sklearn_digits"}


@pytest.mark.timeout(900)           # on a busy machine; each wait in it has a limit of its own
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_example_does_what_its_page_says(folder: Path, reader: Reader) -> None:
    shutil.copytree(folder, reader.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    reader.read(folder / "README.md")


def test_every_example_is_listed_and_has_data_or_makes_them() -> None:
    listed = set(re.findall(r"\]\((\w+)/README\.md\)", (EXAMPLES / "README.md").read_text()))
    assert listed == {folder.name for folder in FOLDERS}
    without = {folder.name for folder in FOLDERS if not (folder / "make_data.py").exists()}
    assert without == NO_DATA_OF_ITS_OWN


HEAD = "patient,age,systolic,glucose,smoker,outcome\n"


@pytest.mark.parametrize(("text", "told"), [
    (HEAD.replace("glucose,", ""), "patients.csv has no column glucose; its columns: patient,"),
    ("", "has no column patient, age, systolic, glucose, smoker, outcome"),
    (HEAD + "p-1,60,130,high,0,1\n", "line 2: glucose is 'high'"),
    (HEAD + "p-1,60,130,nan,0,1\n", "line 2: glucose is 'nan'"),
    (HEAD + "p-1,60,130,,0,1\np-2,60,130,,0,2\n", "line 3: outcome is 2"),
    (HEAD + "p-1,60,130,,0\n", "line 2: outcome is None"),
    (HEAD + ",60,130,,0,1\n", "line 2: no patient"),
])
def test_a_table_that_cannot_be_used_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "patients.csv").write_text(text)
    task = load_task(f"{EXAMPLES / 'torch_csv' / 'outcomes.py'}:Outcomes").bind({})
    with pytest.raises(DataError, match=told):
        task.check(Site(client="a", data=tmp_path))


def test_what_was_not_measured_is_the_agreed_mean_and_nobody_is_dealt_to_two_clients(tmp_path: Path) -> None:
    lines = [f"p-{number // 3},60,130,,0.5,{number % 2}\n" for number in range(300)]
    (tmp_path / "patients.csv").write_text(HEAD + "".join(lines))
    task = load_task(f"{EXAMPLES / 'torch_csv' / 'outcomes.py'}:Outcomes").bind({})
    kind = sys.modules[type(task).__module__]
    assert kind.numbers_of({"age": "60", "systolic": "130", "glucose": "", "smoker": "0.5", "outcome": "1"}, "") == {
        "age": 60, "systolic": 130, "glucose": 105, "smoker": 0.5, "outcome": 1,
    }
    whole = task.dataset(Site(client="a", data=tmp_path), "train").patients
    dealt = [
        {whole[row] for row in task.part(Site(client="a", data=tmp_path, partition=part), "train").rows}
        for part in (Partition(index=1, count=2), Partition(index=2, count=2))
    ]
    assert dealt[0] and dealt[1] and not dealt[0] & dealt[1]
