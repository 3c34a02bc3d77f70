"""k-NN, the nearest class centre, scores, and the three probes together."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cssl_cli.errors import InputError, RunError
from cssl_cli.features.geometry import distances, unit_norm
from cssl_cli.features.probe import CenterAccumulator, center_probe, feature_probes, score
from cssl_cli.features.probe.knn import effective_k, knn_predict
from cssl_cli.features.probe.linear import fit_linear
from cssl_cli.features.probe.nearest_center import TIED, nearest_center_predict
from cssl_cli.host.randomness import stream

SETTINGS = {
    "knn_k": 20,
    "knn_temperature": 0.1,
    "center_views": 2,
    "penalties": [1e-3, 1e-1],
    "validation_fraction": 0.2,
}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=stream(seed, "features"))


# ---------------------------------------------------------------------- geometry
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-30, 1e-3, 1.0, 1e30]))
@settings(max_examples=20, deadline=None)
def test_unit_norm_has_length_one_at_any_scale_and_keeps_the_direction(seed, scale):
    features = scale * normal(5, 3, seed=seed)
    unit = unit_norm(features)
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(unit, unit_norm(features.double()).float())


def test_unit_norm_leaves_zero_vectors_zero():
    assert torch.equal(unit_norm(torch.tensor([[0.0, 0.0], [3.0, 4.0]])), torch.tensor([[0.0, 0.0], [0.6, 0.8]]))


def test_distances_of_near_neighbours_keep_their_digits():
    first = torch.full((1, 512), 1e3, dtype=torch.float64)
    second = first.clone()
    second[0, 0] += 1e-6
    assert distances(first, second).item() == pytest.approx(second[0, 0].item() - 1e3, rel=1e-12)


# ---------------------------------------------------------------------- k-NN
def knn_by_hand(train, labels, queries, *, k, temperature, num_classes):
    predictions = []
    for query in queries:
        cosines = [float(query @ x / (query.norm() * x.norm())) for x in train]
        nearest = sorted(range(len(train)), key=lambda i: -cosines[i])[:k]
        votes = [sum(math.exp(cosines[i] / temperature) for i in nearest if labels[i] == c) for c in range(num_classes)]
        predictions.append(votes.index(max(votes)))
    return predictions


@pytest.mark.parametrize("k", [1, 3, 12, 40])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_knn_agrees_with_a_count_by_hand(k, temperature):
    train, queries = normal(40, 5), normal(25, 5, seed=1)
    labels = torch.arange(40) % 3
    got = knn_predict(train, labels, queries, k=k, temperature=temperature, num_classes=3)
    assert got.tolist() == knn_by_hand(train, labels, queries, k=k, temperature=temperature, num_classes=3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probes_take_features_of_half_precision(dtype):
    generator = stream(0, "half")
    centers = torch.eye(3, 8).repeat_interleave(10, dim=0)
    train, test = (centers + 0.1 * torch.randn(30, 8, generator=generator) for _ in range(2))
    labels = torch.arange(3).repeat_interleave(10)
    train, test = train.to(dtype), test.to(dtype)
    options = {"k": 5, "temperature": 0.1, "num_classes": 3}
    half = knn_predict(train, labels, test, **options)
    assert half.tolist() == knn_predict(train.float(), labels, test.float(), **options).tolist() == labels.tolist()
    classifier, _ = fit_linear(train, labels, penalties=[1e-3], validation_fraction=0.2, generator=generator)
    assert classifier.predict(test).tolist() == labels.tolist()


def test_knn_reads_directions_only():
    train, queries, labels = normal(30, 4), normal(10, 4, seed=1), torch.arange(30) % 2
    lengths = torch.rand(30, 1, generator=stream(0, "lengths")) * 100 + 0.01
    arguments = {"k": 5, "temperature": 0.1, "num_classes": 2}
    plain = knn_predict(train, labels, queries, **arguments)
    assert torch.equal(plain, knn_predict(train * lengths, labels, queries * 7, **arguments))


def test_knn_at_a_low_temperature_is_the_nearest_neighbour():
    train, queries, labels = normal(30, 4), normal(20, 4, seed=1), torch.arange(30) % 5
    nearest = labels[(unit_norm(queries) @ unit_norm(train).T).argmax(dim=1)]
    assert torch.equal(knn_predict(train, labels, queries, k=30, temperature=1e-4, num_classes=5), nearest)


def test_neighbours_tied_at_the_last_place_share_it():
    # k = 2: the nearest image is of class 0; four equally near ones, of classes 1, 1, 1 and 2, share the other place.
    level = torch.tensor([0.6, 0.8])
    train = torch.stack([torch.tensor([0.8, 0.6]), level, level, level, level])
    labels, query = torch.tensor([0, 1, 1, 1, 2]), torch.tensor([[1.0, 0.0]])
    # Votes at temperature T: exp(0.8/T) for class 0 against ¾ exp(0.6/T) for class 1.
    assert knn_predict(train, labels, query, k=2, temperature=1.0, num_classes=3).item() == 0
    # k = 4: three places are shared, so class 1 has 9/4 exp(0.6/T) and wins when exp(0.2/T) < 9/4.
    assert knn_predict(train, labels, query, k=4, temperature=1.0, num_classes=3).item() == 1
    assert knn_predict(train, labels, query, k=4, temperature=0.2, num_classes=3).item() == 0


def votes_with_ties_by_hand(train, labels, query, *, k, temperature, num_classes):
    cosines = [round(float(query @ x / (query.norm() * x.norm())), 12) for x in train]
    last = sorted(cosines, reverse=True)[k - 1]
    share = (k - sum(c > last for c in cosines)) / cosines.count(last)
    weights = [(1.0 if c > last else share if c == last else 0.0) * math.exp(c / temperature) for c in cosines]
    return [sum(w for w, label in zip(weights, labels, strict=True) if label == c) for c in range(num_classes)]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_many_ties_are_shared_whatever_the_order_of_the_training_images(seed, k):
    random = np.random.default_rng(seed)
    train = torch.tensor(random.choice([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]], size=12), dtype=torch.float64)
    labels = torch.tensor(random.integers(0, 3, 12))
    queries = torch.tensor(random.normal(size=(6, 3)))
    order = torch.tensor(random.permutation(12))
    arguments = {"k": k, "temperature": 0.37, "num_classes": 3}
    plain = knn_predict(train, labels, queries, **arguments)
    shuffled = knn_predict(train[order], labels[order], queries, **arguments)
    for query, one, other in zip(queries, plain, shuffled, strict=True):
        votes = votes_with_ties_by_hand(train, labels, query, **arguments)
        if sorted(votes)[-1] - sorted(votes)[-2] > 1e-9:  # equal votes may be told apart by rounding
            assert one == other == votes.index(max(votes))


def test_equal_votes_go_to_the_first_class():
    train = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    for labels in ([0, 1], [1, 0]):
        got = knn_predict(train, torch.tensor(labels), torch.tensor([[1.0, 0.0]]), k=2, temperature=0.1, num_classes=2)
        assert got.item() == 0


def test_knn_in_small_blocks_is_the_same(monkeypatch):
    train, queries, labels = normal(30, 4), normal(17, 4, seed=1), torch.arange(30) % 3
    arguments = {"k": 7, "temperature": 0.1, "num_classes": 3}
    whole = knn_predict(train, labels, queries, **arguments)
    monkeypatch.setattr("cssl_cli.features.probe.knn.BLOCK_ENTRIES", 100)
    assert torch.equal(whole, knn_predict(train, labels, queries, **arguments))


@pytest.mark.parametrize(
    ("k", "num_train", "num_classes", "expected"),
    [(200, 50_000, 10, 200), (200, 1000, 10, 100), (200, 7, 10, 1), (5, 1000, 10, 5), (200, 3, 1, 3)],
)
def test_k_is_capped_by_the_images_of_a_class(k, num_train, num_classes, expected):
    assert effective_k(k, num_train, num_classes) == expected


# ---------------------------------------------------------------------- nearest class centre
def test_centers_are_means_of_class_means_over_unit_norm_views():
    features, labels = normal(20, 3, 5), torch.arange(20) % 4
    whole, blocks = CenterAccumulator(4, 5), CenterAccumulator(4, 5)
    whole.add(features, labels)
    for part in torch.arange(20).split(6):
        blocks.add(features[part], labels[part])
    for label in range(4):
        views = [view / view.norm() for image in features[labels == label].double() for view in image]
        torch.testing.assert_close(whole.centers()[label], sum(views) / len(views))
    torch.testing.assert_close(blocks.centers(), whole.centers())
    assert whole.centers().dtype == torch.float64


def test_the_nearest_centre_is_nearest_to_the_unit_norm_feature():
    features, centers = normal(30, 4), unit_norm(normal(3, 4, seed=1)).double() * torch.tensor([[0.2], [0.5], [0.9]])
    expected = [min(range(3), key=lambda k, x=x: float((x - centers[k]).norm())) for x in unit_norm(features.double())]
    assert nearest_center_predict(features, centers).tolist() == expected
    assert nearest_center_predict(9 * features, centers).tolist() == expected


def test_an_exact_tie_between_the_nearest_two_is_no_class_and_an_error():
    centers = torch.tensor([[0.5, 0.5], [0.5, -0.5], [-1.0, 0.0]])
    features = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -3.0]])
    predictions = nearest_center_predict(features, centers)
    assert predictions.tolist() == [TIED, 0, 2, 1]
    assert score(predictions, torch.tensor([0, 0, 2, 1]), ["a", "b", "c"])["accuracy"] == 0.75


def test_a_tie_of_farther_centres_does_not_matter():
    centers = torch.tensor([[-1.0, 0.5], [-1.0, -0.5], [1.0, 0.0]])
    assert nearest_center_predict(torch.tensor([[1.0, 0.0]]), centers).tolist() == [2]


def test_a_class_without_training_images_is_never_predicted():
    accumulator = CenterAccumulator(3, 2)
    accumulator.add(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]), torch.tensor([0, 2]))
    assert accumulator.centers()[1].isnan().all()
    features = torch.tensor([[1.0, 0.1], [0.1, 1.0], [0.0, 0.0]])
    assert nearest_center_predict(features, accumulator.centers()).tolist() == [0, 2, TIED]


# ---------------------------------------------------------------------- score
def test_a_score_counts_by_class_and_has_an_exact_interval():
    predictions, labels = torch.tensor([0, 1, 1, 0, -1, 0]), torch.tensor([0, 1, 0, 0, 1, 0])
    result = score(predictions, labels, ["cat", "dog", "owl"])
    assert (result["accuracy"], result["num_images"]) == (4 / 6, 6)
    assert result["per_class"] == {"cat": 3 / 4, "dog": 1 / 2, "owl": None}
    assert result["images_per_class"] == {"cat": 4, "dog": 2, "owl": 0}
    low, high = result["interval"]
    assert stats.binom.sf(3, 6, low) == pytest.approx(0.025)
    assert stats.binom.cdf(4, 6, high) == pytest.approx(0.025)


# ---------------------------------------------------------------------- all three
def probes(train=None, train_labels=None, test=None, test_labels=None, *, class_names=("a", "b", "c"), **changes):
    train = 3 * torch.eye(3)[torch.arange(60) % 3].repeat(1, 2) + normal(60, 6) if train is None else train
    train_labels = torch.arange(60) % 3 if train_labels is None else train_labels
    test = 3 * torch.eye(3)[torch.arange(30) % 3].repeat(1, 2) + normal(30, 6, seed=1) if test is None else test
    test_labels = torch.arange(30) % 3 if test_labels is None else test_labels
    accumulator = CenterAccumulator(len(class_names), train.shape[1])
    accumulator.add(train.unsqueeze(1), train_labels.clamp(0, len(class_names) - 1))
    settings = SETTINGS | changes
    by_features = feature_probes(
        train,
        train_labels,
        test,
        test_labels,
        class_names=class_names,
        settings=settings,
        generator=stream(0, "split"),
    )
    by_center = center_probe(
        accumulator.centers(), test, test_labels, class_names=class_names, center_views=settings["center_views"]
    )
    return {**by_features, "nearest_center": by_center}


def test_three_scores_each_with_its_own_facts_as_strict_json():
    result = json.loads(json.dumps(probes(), allow_nan=False))
    assert list(result) == ["linear", "knn", "nearest_center"]
    for scores in result.values():
        assert scores["accuracy"] > 0.8
        assert scores["interval"][0] < scores["accuracy"] <= scores["interval"][1]
        assert scores["num_images"] == 30
        assert set(scores["per_class"]) == {"a", "b", "c"}
    assert result["linear"]["penalty"] in SETTINGS["penalties"]
    assert result["linear"]["converged"]
    assert (result["knn"]["k"], result["knn"]["temperature"]) == (20, 0.1)
    assert probes(knn_k=500)["knn"]["k"] == 20
    assert result["nearest_center"]["center_views"] == 2


def test_the_test_set_decides_nothing_but_the_score():
    facts = ("penalty", "penalty_at_grid_edge", "validation_accuracy", "converged", "iterations", "warnings")
    before, after = probes()["linear"], probes(test=normal(30, 6, seed=9))["linear"]
    assert before["accuracy"] != after["accuracy"]
    assert [before[fact] for fact in facts] == [after[fact] for fact in facts]


def test_the_probes_repeat_themselves():
    assert probes() == probes()


def test_two_classes_of_one_image_each():
    result = probes(
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        torch.tensor([1, 0]),
        torch.tensor([[2.0, 0.1], [0.1, 2.0]]),
        torch.tensor([1, 0]),
        class_names=("a", "b"),
    )
    assert [scores["accuracy"] for scores in result.values()] == [1.0, 1.0, 1.0]
    assert result["knn"]["k"] == 1


def test_a_class_of_training_images_only_has_no_accuracy():
    result = probes(test=normal(4, 6), test_labels=torch.tensor([0, 1, 0, 1]))
    assert [scores["per_class"]["c"] for scores in result.values()] == [None] * 3


def test_a_test_class_that_training_lacks_is_named():
    with pytest.raises(InputError, match="test images of 'c', and no training image of that class"):
        probes(train_labels=torch.arange(60) % 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["train", "test"])
def test_undefined_features_stop_with_a_sentence(which, bad):
    features = normal(60 if which == "train" else 30, 6)
    features[4, 2] = bad
    with pytest.raises(RunError, match=rf"features of the {which}\w* images contain infinite or undefined"):
        probes(**{which: features})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.arange(30) % 4, "test labels run from 0 to 3 but there are 3 classes"),
        (torch.arange(30) - 1, "test labels run from -1"),
        (torch.arange(20) % 3, "30 test images have labels of shape"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(InputError, match=message):
        probes(test_labels=labels)


def test_an_empty_test_set_is_refused():
    with pytest.raises(InputError, match="no test images"):
        probes(test=torch.zeros(0, 6), test_labels=torch.zeros(0, dtype=torch.int64))
