"""Few labelled images: which they are, what is chosen within them, what is said of several draws; top-5 accuracies."""

from __future__ import annotations

import math
import statistics
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cssl_cli.features.intervals import mean_interval
from cssl_cli.features.probe import CenterAccumulator, center_probe, feature_probes, few_center_probes, linear
from cssl_cli.features.probe.few_labels import FewLabels, Level
from cssl_cli.features.probe.knn import knn_predict
from cssl_cli.features.probe.linear import fit_linear, split_folds
from cssl_cli.features.probe.scoring import among_first, over_draws, score
from cssl_cli.features.proportions import clopper_pearson
from cssl_cli.host.randomness import stream

SETTINGS: dict[str, Any] = {
    "knn_k": 20,
    "knn_temperature": 0.1,
    "penalties": [1e-3, 1e-1, 10.0],
    "validation_fraction": 0.2,
}


def few_of(seed: int = 0, **settings: Any) -> FewLabels:
    return FewLabels.of(settings, partial(stream, seed))


def clusters(num_images: int, num_classes: int = 4, *, seed: int = 0, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    labels = torch.arange(num_images) % num_classes
    centers = 2 * torch.eye(num_classes).repeat(1, 2)
    return centers[labels] + noise * torch.randn(num_images, 2 * num_classes, generator=stream(seed, "x")), labels


# ---------------------------------------------------------------------- which images
@given(st.lists(st.integers(0, 4), min_size=5, max_size=60), st.integers(0, 3))
def test_choices_are_stratified_nested_and_never_without_a_class(labels_: list[int], draw: int) -> None:
    labels = torch.tensor([0, 1, 2, 3, 4, *labels_])
    few = few_of(label_fraction=(0.1, 0.5, 1.0), shots=(1, 3))
    chosen = {level: set(few.rows(labels, level, draw).tolist()) for level in few.levels}
    for level, rows in chosen.items():
        for k in range(5):
            size = int((labels == k).sum())
            wanted = int(level.value) if level.of == "shots" else round(level.value * size)
            assert sum(labels[row].item() == k for row in rows) == min(max(wanted, 1), size)
    assert chosen[Level("shots", 1)] <= chosen[Level("shots", 3)]
    assert chosen[Level("label_fraction", 0.1)] <= chosen[Level("label_fraction", 0.5)]
    assert chosen[Level("label_fraction", 1.0)] == set(range(len(labels)))


def test_choices_differ_between_draws_and_seeds_and_come_again() -> None:
    labels = torch.arange(400) % 4
    level = Level("shots", 10)
    rows = [few_of(seed).rows(labels, level, draw).tolist() for seed in (0, 1) for draw in (0, 1)]
    assert len({tuple(one) for one in rows}) == 4
    assert few_of(1).rows(labels, level, 1).tolist() == rows[3]
    assert rows[0] == sorted(rows[0])
    # Every image is chosen equally often.
    drawn = torch.stack([few_of(2).rows(labels, level, draw).bincount(minlength=400) for draw in range(200)]).sum(dim=0)
    assert (drawn.double().mean(), drawn.double().var()) == (20, pytest.approx(200 * 0.1 * 0.9, rel=0.25))


def test_all_labels_are_the_classifiers_themselves_and_a_few_those_of_their_images() -> None:
    (train, labels), (test, test_labels) = clusters(200), clusters(80, seed=1)
    few = few_of(label_fraction=(0.1, 1.0), shots=(1,), draws=3)
    names = list("abcd")
    centers = CenterAccumulator(4, 8, keep=True)
    for views, of_views in zip(train.unsqueeze(1).split(64), labels.split(64), strict=True):
        centers.add(views, of_views)
    whole = center_probe(centers.centers(), test, test_labels, class_names=names, center_views=1)
    found = feature_probes(
        train,
        labels,
        test,
        test_labels,
        class_names=names,
        settings=SETTINGS,
        generator=stream(0, "split"),
        few=few,
    )
    plain = feature_probes(
        train, labels, test, test_labels, class_names=names, settings=SETTINGS, generator=stream(0, "split")
    )
    found["nearest_center"] = {
        **whole,
        **few_center_probes(few, centers, whole, labels, test, test_labels, class_names=names),
    }
    for name, scores in found.items():
        a_tenth, all_of_them, one_shot = scores["few_labels"]
        if name in plain:
            assert {key: value for key, value in scores.items() if key != "few_labels"} == plain[name]
        assert all_of_them["accuracies"] == [scores["accuracy"]]
        assert (all_of_them["accuracy"], all_of_them["sd"], all_of_them["interval"]) == (scores["accuracy"], None, None)
        assert (a_tenth["label_fraction"], a_tenth["labelled_images"], a_tenth["n"]) == (0.1, 20, 3)
        assert (one_shot["shots"], one_shot["labelled_images"]) == (1, 4)
        assert a_tenth["accuracy"] == statistics.fmean(a_tenth["accuracies"])
        assert a_tenth["sd"] == statistics.stdev(a_tenth["accuracies"])
    assert found["linear"]["few_labels"][2]["penalty"] == [10.0] * 3, "nothing to choose by: the strongest"
    assert [entry["k"] for entry in found["knn"]["few_labels"]] == [[5] * 3, [20], [1] * 3]
    for draw in range(3):
        rows = few.rows(labels, Level("shots", 1), draw)
        of_one = knn_predict(train[rows], labels[rows], test, k=1, temperature=0.1, num_classes=4)
        accuracy = (of_one == test_labels).double().mean().item()
        assert found["knn"]["few_labels"][2]["accuracies"][draw] == accuracy
        nearest = CenterAccumulator(4, 8)
        nearest.add(train[rows].unsqueeze(1), labels[rows])
        by_hand = center_probe(nearest.centers(), test, test_labels, class_names=names, center_views=1)
        assert found["nearest_center"]["few_labels"][2]["accuracies"][draw] == by_hand["accuracy"]


def test_the_test_images_decide_nothing_but_the_scores() -> None:
    (train, labels), few = clusters(200), few_of(shots=(2, 5), draws=3)
    facts = []
    for seed in (1, 2):
        test, test_labels = clusters(80, seed=seed)
        found = feature_probes(
            train,
            labels,
            test,
            test_labels.flip(0),
            class_names=list("abcd"),
            settings=SETTINGS,
            generator=stream(0, "split"),
            few=few,
        )
        facts.append([(entry["penalty"], entry["labelled_images"]) for entry in found["linear"]["few_labels"]])
    assert facts[0] == facts[1]


# ---------------------------------------------------------------------- the penalty
def test_folds_hold_out_each_image_once_and_no_class_whole() -> None:
    labels = torch.tensor([0] * 7 + [1] * 2 + [2])
    folds = split_folds(labels, folds=5, generator=stream(0, "folds"))
    held_out = torch.stack(folds).sum(dim=0)
    assert held_out.tolist() == [1] * 9 + [0]
    for fold in folds:
        assert set(labels[~fold].tolist()) == {0, 1, 2}
        assert int((labels[fold] == 0).sum()) in (1, 2)


def test_the_penalty_of_few_images_is_the_best_over_all_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "SEARCH_TOLERANCE", linear.FINAL_TOLERANCE)
    features, labels = clusters(40, noise=2.0)
    grid = [1e-3, 1e-1, 10.0]
    folds = split_folds(labels, folds=5, generator=stream(3, "folds"))
    right = dict.fromkeys(grid, 0)
    for penalty in grid:
        for fold in folds:
            one, _ = fit_linear(
                features[~fold], labels[~fold], penalties=[penalty], validation_fraction=0.1, generator=stream(0, "x")
            )
            right[penalty] += int((one.predict(features[fold]) == labels[fold]).sum())
    _, facts = fit_linear(
        features, labels, penalties=grid, validation_fraction=0.1, generator=stream(3, "folds"), folds=5
    )
    assert facts["penalty"] == max(grid, key=lambda penalty: (right[penalty], penalty))
    assert facts["validation_accuracy"] == pytest.approx(right[facts["penalty"]] / 40)


# ---------------------------------------------------------------------- over draws
def test_an_interval_over_draws_is_students() -> None:
    low, high = mean_interval([0.5, 0.7, 0.6]) or (0, 0)
    assert ((low + high) / 2, (high - low) / 2) == (pytest.approx(0.6), pytest.approx(4.302653 * 0.1 / math.sqrt(3)))
    assert mean_interval([0.5]) is None
    assert mean_interval([0.5, 0.5, 0.5]) is None
    near = over_draws([{"accuracy": share} for share in (1.0, 1.0, 0.9)])
    assert near["interval"] == [pytest.approx(0.9667 - 4.302653 * 0.05774 / math.sqrt(3), abs=1e-4), 1.0]


def test_intervals_over_draws_cover_the_mean_over_all_draws() -> None:
    # k-NN with two labelled images a class; 240 intervals of five draws each, against the mean of all 1,200.
    (train, labels), (test, test_labels) = clusters(400, noise=1.5), clusters(60, seed=1, noise=1.5)
    few = few_of(shots=(2,))
    accuracies = []
    for draw in range(1200):
        rows = few.rows(labels, few.levels[0], draw)
        found = knn_predict(train[rows], labels[rows], test, k=2, temperature=0.1, num_classes=4)
        accuracies.append((found == test_labels).double().mean().item())
    mean = statistics.fmean(accuracies)
    intervals = [mean_interval(accuracies[place : place + 5]) for place in range(0, 1200, 5)]
    covered = sum(one is not None and one[0] <= mean <= one[1] for one in intervals)
    low, high = clopper_pearson(covered, len(intervals), confidence=0.999)
    assert low <= 0.95 <= high, covered / len(intervals)


# ---------------------------------------------------------------------- top-5
def test_top_5_counts_the_classes_ahead_of_the_right_one() -> None:
    scores = torch.tensor([[11.0, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]]).repeat(11, 1)
    assert (among_first(scores, torch.arange(11), 11)).tolist() == [True] * 5 + [False] * 6  # type: ignore[union-attr]
    assert among_first(scores[:, :10], torch.arange(10), 10) is None
    level = torch.zeros(11, 11)
    first = among_first(level, torch.arange(11), 11)
    assert first is not None
    assert first.tolist() == [True] * 5 + [False] * 6, "as the first of equals is predicted"
    for found in (
        among_first(level, torch.arange(11), 11, tied_are_ahead=True),
        among_first(level, torch.arange(11), 11, least=0),
    ):
        assert found is not None
        assert not found.any()


def test_top_5_of_all_classifiers_is_that_of_a_count_by_hand() -> None:
    (train, labels), (test, test_labels) = clusters(360, 12, noise=1.5), clusters(120, 12, seed=1, noise=1.5)
    names = list("abcdefghijkl")
    few = few_of(shots=(1, 3), draws=2)
    found = feature_probes(
        train,
        labels,
        test,
        test_labels,
        class_names=names,
        settings=SETTINGS,
        generator=stream(0, "split"),
        few=few,
    )
    centers = torch.stack([torch.nn.functional.normalize(train[labels == k]).mean(dim=0) for k in range(12)])
    whole = center_probe(centers, test, test_labels, class_names=names, center_views=1)
    order = torch.cdist(torch.nn.functional.normalize(test).double(), centers.double()).argsort(dim=1)
    by_hand = (order[:, :5] == test_labels.unsqueeze(1)).any(dim=1)
    assert whole["top_5"]["accuracy"] == by_hand.double().mean().item()
    assert whole["top_5"]["interval"] == list(clopper_pearson(int(by_hand.sum()), 120))
    classifier, _ = fit_linear(
        train, labels, penalties=SETTINGS["penalties"], validation_fraction=0.2, generator=stream(0, "split")
    )
    logits = classifier.logits(test)
    by_hand = (logits.topk(5).indices == test_labels.unsqueeze(1)).any(dim=1)
    assert found["linear"]["top_5"]["accuracy"] == by_hand.double().mean().item()
    for scores in found.values():
        assert scores["accuracy"] < scores["top_5"]["accuracy"] < 1
        assert [entry["top_5"]["n"] for entry in scores["few_labels"]] == [2, 2]
        assert all(entry["top_5"]["accuracy"] >= entry["accuracy"] for entry in scores["few_labels"])
    # One neighbour votes for one class: its five first are no more than that.
    assert found["knn"]["few_labels"][0]["top_5"]["accuracies"] == found["knn"]["few_labels"][0]["accuracies"]
    assert "top_5" not in score(test_labels, test_labels, names)
