"""Metrics: the federation's score is the score on everybody's examples together."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fednode.core.json import canonical_json
from fednode.core.metrics import (
    Histogram,
    Metric,
    Metrics,
    Pooled,
    Sum,
    check_metrics,
    value_from_json,
    value_to_json,
)
from fednode.core.pooling import FUNCTIONS, pool, require_poolable
from fednode.errors import BadConfig, TaskFailed

SCORES = (
    Metric(name="accuracy", of="scores", combine="accuracy"),
    Metric(name="balanced_accuracy", of="scores", combine="balanced_accuracy"),
    Metric(name="sensitivity", of="scores", combine="sensitivity"),
    Metric(name="specificity", of="scores", combine="specificity"),
    Metric(name="auc", of="scores", combine="auc"),
    Metric(name="roc", of="scores", combine="roc"),
    Metric(name="cut", of="scores", combine="threshold"),
    Metric(name="sensitivity_at_cut", of="scores", combine="sensitivity", at="cut"),
    Metric(name="specificity_at_cut", of="scores", combine="specificity", at="cut"),
)


def found(value: object, count: int = 1, name: str = "m") -> Metrics:
    return Metrics(values={name: value}, num_examples={"test": count})  # type: ignore[dict-item]


def pooled(spec: Metric, *values: object) -> float | list[list[float]] | None:
    """Of clients that measured one example each."""
    results = pool([spec], {f"c{i}": found(value, name=spec.source) for i, value in enumerate(values)})
    return results[0].value if results else None


def scores_of(examples: Sequence[tuple[float, int]], bins: int = 1000) -> Metrics:
    scores = np.array([score for score, _ in examples], dtype=np.float64)
    labels = np.array([label for _, label in examples], dtype=np.float64)
    return Metrics(values={"scores": Histogram.of_scores(scores, labels, bins)}, num_examples={"test": len(examples)})


def values_of(specs: Sequence[Metric], evaluations: dict[str, Metrics]) -> dict[str, float | list[list[float]]]:
    return {result.name: result.value for result in pool(specs, evaluations)}


def brute_auc(examples: Sequence[tuple[float, int]]) -> float:
    """Of all pairs of a positive and a negative, the share that is in order; a tie is half."""
    pairs = [(p, n) for p, is_positive in examples if is_positive for n, other in examples if not other]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


# A score in the middle of one of a thousand bins, so that binning moves nothing over an edge.
binned = st.integers(0, 999).map(lambda bin_: (bin_ + 0.5) / 1000)
examples = st.lists(st.tuples(binned, st.integers(0, 1)), max_size=30)


# --- floats and sums ------------------------------------------------------------------------------------


def test_a_float_is_pooled_as_the_mean_by_examples():
    result = pool([Metric(name="m")], {"b": found(1.0, 1), "a": found(0.5, 3)})
    assert result == [Pooled(name="m", value=0.625, num_clients=2, num_examples=4)]     # (1 * 1 + 0.5 * 3) / 4


def test_floats_are_added_in_name_order():
    """0.1 + 0.2 + 0.3 is another float than 0.3 + 0.2 + 0.1."""
    evaluations = {"a": found(0.1), "b": found(0.2), "c": found(0.3)}
    backwards = dict(reversed(evaluations.items()))
    assert [pool([Metric(name="m")], e)[0].value for e in (evaluations, backwards)] == [(0.1 + 0.2 + 0.3) / 3] * 2


def test_a_sum_of_floats_is_their_sum():
    assert pooled(Metric(name="m", combine="sum"), 2.0, 3.0) == 5.0
    assert pooled(Metric(name="m", combine="sum"), Sum([1, 2]), Sum([3, 4])) == 10.0


@pytest.mark.parametrize("combine", ["mean", "accuracy"])
def test_a_share_is_pooled_from_its_counts(combine):
    assert pooled(Metric(name="m", combine=combine), Sum([9, 10]), Sum([0, 2])) == 0.75        # 9 of 12


def test_a_confusion_matrix_of_three_classes():
    """Rows are the truth. Right: 4 + 1 + 2 of 10; recalls 4/5, 1/3, 2/2."""
    left, right = Sum([[3, 1, 0], [1, 1, 1], [0, 0, 0]]), Sum([[1, 0, 0], [0, 0, 0], [0, 0, 2]])
    assert pooled(Metric(name="m", combine="accuracy"), left, right) == 0.7
    assert pooled(Metric(name="m", combine="balanced_accuracy"), left, right) == pytest.approx((4 / 5 + 1 / 3 + 1) / 3)


def test_sensitivity_and_specificity_of_a_two_by_two_matrix():
    matrix = Sum([[6, 2], [1, 3]])              # 6 of 8 negatives, 3 of 4 positives
    assert pooled(Metric(name="m", combine="specificity"), matrix) == 0.75
    assert pooled(Metric(name="m", combine="sensitivity"), matrix) == 0.75
    assert pooled(Metric(name="m", combine="sensitivity"), Sum([[6, 2], [3, 1]])) == 0.25


def test_a_class_that_nobody_has_is_left_out_of_the_balanced_accuracy():
    assert pooled(Metric(name="m", combine="balanced_accuracy"), Sum([[1, 1], [0, 0]])) == 0.5


# --- scores ---------------------------------------------------------------------------------------------


def test_a_histogram_by_hand():
    """Four bins. Negatives 0.1 0.3 0.6, positives 0.3 0.6 0.9."""
    histogram = Histogram.of_scores(np.array([0.1, 0.3, 0.6, 0.3, 0.6, 0.9]), np.array([0.0, 0, 0, 1, 1, 1]), bins=4)
    assert histogram.counts.tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]
    values = values_of(SCORES, {"a": Metrics(values={"scores": histogram}, num_examples={"test": 6})})
    # At 0.5: 2 of 3 negatives below, 2 of 3 positives above.
    assert values["accuracy"] == values["sensitivity"] == values["specificity"] == pytest.approx(2 / 3)
    # From the top bin down; of the 9 pairs 6 are in order and 2 are ties.
    assert values["roc"] == [[0, 0], [0, 1 / 3], [1 / 3, 2 / 3], [2 / 3, 1], [1, 1]]
    assert values["auc"] == pytest.approx(7 / 9)
    assert values["cut"] == 0.25                # 2 of 3 positives are less than 0.9 of them
    assert (values["sensitivity_at_cut"], values["specificity_at_cut"]) == (1.0, 1 / 3)


@given(examples)
def test_auc_is_the_share_of_pairs_in_order(examples):
    values = values_of(SCORES, {"a": scores_of(examples)})
    labels = {label for _, label in examples}
    assert ("auc" in values) == (labels == {0, 1})
    if labels == {0, 1}:
        assert values["auc"] == pytest.approx(brute_auc(examples), abs=1e-12)


@given(st.lists(examples, min_size=1, max_size=4))
def test_the_pooled_score_is_the_score_on_the_pooled_examples(sites):
    together = [example for site in sites for example in site]
    evaluations = {f"site-{i}": scores_of(site) for i, site in enumerate(sites)}
    assert values_of(SCORES, evaluations) == values_of(SCORES, {"all": scores_of(together)})


@given(st.lists(examples, min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_no_metric(sites, rng):
    evaluations = [(f"site-{i}", scores_of(site)) for i, site in enumerate(sites)]
    once = pool(SCORES, dict(evaluations))
    rng.shuffle(evaluations)
    assert pool(SCORES, dict(evaluations)) == once


@given(examples.filter(lambda found: {label for _, label in found} == {0, 1}))
def test_the_threshold_is_the_highest_that_finds_nine_of_ten_positives(examples):
    threshold = values_of(SCORES, {"a": scores_of(examples)})["cut"]
    positives = [score for score, label in examples if label]

    def share(at: float) -> float:
        return sum(score > at for score in positives) / len(positives)

    edges = [edge / 1000 for edge in range(1000)]
    assert threshold == pytest.approx(max(edge for edge in edges if share(edge) >= 0.9))


def test_a_number_cuts_where_it_says():
    specs = [Metric(name=f"at_{at}", of="scores", combine="sensitivity", at=at) for at in (0, 0.25, 0.5, 1)]
    evaluations = {"a": scores_of([(0.1, 1), (0.3, 1), (0.6, 1), (0.9, 1), (0.2, 0)], bins=20)}
    assert list(values_of(specs, evaluations).values()) == [1.0, 0.75, 0.5, 0.0]


def test_a_score_of_exactly_one_and_exactly_the_cut_are_positive():
    values = values_of(SCORES, {"a": scores_of([(1.0, 1), (0.5, 1), (0.0, 0), (0.499, 0)])})
    assert (values["accuracy"], values["auc"]) == (1.0, 1.0)


# --- what has no value ----------------------------------------------------------------------------------


def test_without_positives_what_needs_them_has_no_value():
    """Nor has what is cut at a threshold that has none: no other cut takes its place."""
    values = values_of(SCORES, {"a": scores_of([(0.2, 0), (0.7, 0)])})
    assert values == {"accuracy": 0.5, "balanced_accuracy": 0.5, "specificity": 0.5}


def test_without_examples_nothing_has_a_value():
    assert pool(SCORES, {"a": scores_of([])}) == []
    assert pool([Metric(name="m")], {"a": found(0.5, 0)}) == []
    assert pooled(Metric(name="m"), Sum([0, 0])) is None
    assert pool([Metric(name="m")], {}) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, Sum([1, math.nan]), np.float32("nan")])
def test_what_is_not_finite_counts_as_not_measured(value):
    """A loss that diverged at one site must neither swallow the others' nor break the JSON."""
    evaluations = {"a": found(value, 5), "b": found(Sum([1, 2]) if isinstance(value, Sum) else 0.5, 1)}
    assert pool([Metric(name="m")], evaluations) == [Pooled(name="m", value=0.5, num_clients=1, num_examples=1)]
    assert json.loads(canonical_json(evaluations["a"].to_json()))["values"] == {}


def test_a_pooled_value_beyond_all_floats_is_no_value():
    assert pool([Metric(name="m")], {"a": found(1e308, 10**15)}) == []


# --- who counts -----------------------------------------------------------------------------------------


def test_a_metric_counts_the_examples_of_its_own_split():
    specs = [Metric(name="loss", goal="min"), Metric(name="val_loss", goal="min", split="val")]
    evaluations = {
        "a": Metrics(values={"loss": 1.0, "val_loss": 1.0}, num_examples={"test": 3, "val": 1}),
        "b": Metrics(values={"loss": 2.0, "val_loss": 2.0}, num_examples={"test": 1, "val": 1}),
    }
    assert pool(specs, evaluations) == [
        Pooled(name="loss", value=1.25, num_clients=2, num_examples=4),         # (1 * 3 + 2 * 1) / 4
        Pooled(name="val_loss", value=1.5, num_clients=2, num_examples=2),
    ]


def test_only_who_measured_it_counts():
    evaluations = {"a": found(1.0, 2), "b": Metrics(values={"other": 5.0}, num_examples={"test": 9})}
    assert pool([Metric(name="m")], evaluations) == [Pooled(name="m", value=1.0, num_clients=1, num_examples=2)]


def test_one_stranger_neither_stops_the_run_nor_counts():
    evaluations = {"a": found(0.1), "b": found(Sum([1, 2])), "c": found(Sum([2, 2])), "d": found(Sum([1, 2, 3]))}
    assert pool([Metric(name="m")], evaluations) == [Pooled(name="m", value=0.75, num_clients=2, num_examples=2)]


def test_a_value_of_the_wrong_kind_is_told_to_whoever_measured_it():
    with pytest.raises(TaskFailed, match="metric 'auc' cannot be made of a number: `roc`, `auc` and `threshold` need"):
        require_poolable(SCORES[4:5], found(0.5, name="scores"))
    with pytest.raises(TaskFailed, match="3 classes"):
        require_poolable([Metric(name="m", combine="sensitivity")], found(Sum(np.eye(3))))
    with pytest.raises(TaskFailed, match="square"):
        require_poolable([Metric(name="m", combine="accuracy")], found(Sum(np.ones((2, 3)))))
    require_poolable(SCORES, scores_of([]))
    require_poolable(SCORES, found(0.5))            # it measured none of them: fine


def test_numbers_of_every_kind_pool_like_floats():
    """A np.float32 must not make the simulated mean a float32 one, where the served one came through JSON."""
    kinds = [np.float32(0.1), np.array(0.1, "float32"), np.float64(np.float32(0.1))]
    means = {pooled(Metric(name="m"), kind, 0.3) for kind in kinds}
    assert means == {(float(np.float32(0.1)) + 0.3) / 2}


# --- declarations and JSON ------------------------------------------------------------------------------


def test_every_combine_has_its_function():
    for combine in FUNCTIONS:
        assert Metric(name="m", combine=combine).combine == combine  # type: ignore[arg-type]
    with pytest.raises(BadConfig, match="median"):
        Metric(name="m", combine="median")  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [{"goal": "up"}, {"split": "train"}, {"at": 1.5}, {"at": -1}])
def test_a_declaration_that_means_nothing_is_refused(fields):
    with pytest.raises(BadConfig, match="metric 'm'"):
        Metric(name="m", **fields)


def test_a_metric_is_cut_at_a_threshold_that_is_declared():
    check_metrics(SCORES)
    with pytest.raises(BadConfig, match="'sensitivity_at_cut' is cut at 'cut'"):
        check_metrics(SCORES[7:8])
    with pytest.raises(BadConfig, match="is no threshold metric"):
        check_metrics([Metric(name="cut"), SCORES[7]])
    with pytest.raises(BadConfig, match="'auc' is declared twice"):
        check_metrics([*SCORES, SCORES[4]])


def test_a_declaration_goes_through_json_and_back():
    for spec in (*SCORES, Metric(name="x", goal="none", unit="s", at=1)):
        assert Metric.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    "change", [{"name": 7}, {"at": [1]}, {"at": True}, {"more": 1}, {"split": None}, {"combine": "exec"}]
)
def test_a_declaration_from_a_stranger_is_checked(change):
    with pytest.raises(BadConfig):
        Metric.from_json({**Metric(name="m").to_json(), **change})


def test_metrics_go_through_json_and_back():
    metrics = Metrics(
        values={"loss": 0.1, "right": Sum([[1, 2], [3, 4]]), "scores": Histogram([[1, 2], [3, 4]])},
        num_examples={"val": 3, "test": 4},
    )
    assert Metrics.from_json(json.loads(canonical_json(metrics.to_json()))) == metrics
    other = {**metrics.values, "right": Sum([[1, 2], [3, 5]])}
    assert metrics != Metrics(values=other, num_examples=metrics.num_examples)


@pytest.mark.parametrize(
    "value", ["0.5", True, None, [1], {"sum": "x"}, {"sum": [[1], [1, 2]]}, {"histogram": [1, 2]}, {"sum": [1], "a": 1},
              {"histogram": [[1], [-1]]}, {"median": [1]}]
)
def test_a_value_from_a_stranger_is_checked(value):
    with pytest.raises(TaskFailed):
        value_from_json(value)


@pytest.mark.parametrize(
    "row", [{}, {"values": [], "num_examples": {}}, {"values": {}, "num_examples": {"test": -1}},
            {"values": {}, "num_examples": {"test": 1.5}}, {"values": {}, "num_examples": {"train": 1}},
            {"values": {}, "num_examples": {"test": 2**53 + 1}}]
)
def test_metrics_from_a_stranger_are_checked(row):
    with pytest.raises(TaskFailed):
        Metrics.from_json(row)


@pytest.mark.parametrize("value", ["0.5", [1.0], np.ones(2), None, object()])
def test_a_task_that_returns_no_number_is_told_so(value):
    with pytest.raises(TaskFailed, match="metric 'm' is"):
        found(value)


def test_a_value_keeps_its_numbers_when_the_task_reuses_its_array():
    counts: NDArray[np.float64] = np.array([1.0, 2.0])
    kept = Sum(counts)
    counts += 1
    assert value_to_json(kept) == {"sum": [1.0, 2.0]}
