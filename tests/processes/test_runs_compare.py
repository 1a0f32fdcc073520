"""`fednode runs compare`, against a central node that has trained."""

from __future__ import annotations

import pytest

from federation_scene import Federation


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    """#1 by a and b, #2 by a alone, #3 by b alone with another learning rate."""
    fed = Federation(tmp_path_factory.mktemp("federation"))
    fed.start_central()
    for number, name in enumerate("ab", 1):
        fed.start_client(name, "--task", "mnist_3v7", "--offline-sample", "--partition", f"{number}/2")
    fed.wait_for_clients("a", "b")
    same = ("mnist_3v7", "--rounds", "1", "--epochs", "1", "--seed", "7")
    asked = [same, (*same, "--clients", "a"), (*same, "--clients", "b", "--learning-rate", "0.01")]
    for run_id in [fed.run_in_background(*args) for args in asked]:
        assert fed.end_of(run_id)["status"] == "completed"
    yield fed
    fed.stop_all()


def test_people_read_what_differs_who_is_best_and_what_each_reached_alone(trained: Federation) -> None:
    done = trained.cli("runs", "compare", "1", "#3")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()]
    found = trained.get("compare?run=1&run=3")
    marked = [row[1] for row in rows if row[0] == "*" and row[1].islower()]
    assert sorted(marked) == sorted(row["name"] for row in found["settings"] if row["differs"])
    assert ["score", "#1", "#3", "best"] in rows
    stars = sum(text.endswith("*") for row in rows for text in row[1:] if "." in text)
    assert stars == sum(row["best"] is not None for row in found["metrics"])
    assert "Note: The runs do not have the same clients" in done.stdout
    (told,) = found["alone"]["clients"]             # of a: b's own run had another learning rate
    cells = [f"{told['federated']:.4f}", f"{told['alone']:.4f}", f"{told['difference']:+.4f}"]
    assert ["a", *cells] in [row[:4] for row in rows]


def test_one_line_of_json_is_the_answer_of_the_api(trained: Federation) -> None:
    done = trained.cli("runs", "compare", "1", "2", "--json")
    (line,) = done.stdout.splitlines()
    assert trained.json("runs", "compare", "1", "2") == trained.get("compare?run=1&run=2")
    assert line.startswith('{"runs": [')
    assert trained.json("runs", "compare", "1")["alone"]["run"] == 1        # one is enough


@pytest.mark.parametrize(("runs", "message"), [
    (["3"], "run #3 has nothing to be compared with"), (["1", "77"], "there is no run '77'"),
    ([*"123123"], "6 runs cannot be compared"),
])
def test_what_cannot_be_compared_ends_with_code_2_and_the_fix(trained: Federation, runs, message) -> None:
    done = trained.cli("runs", "compare", *runs)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Fix: " in done.stderr
    assert done.stdout == ""
