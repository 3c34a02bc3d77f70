"""The linear probe: against an independent solver, closed forms, invariances, and how its penalty is chosen."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from cssl_cli.features.probe.linear import Standardization, fit_linear, split_validation
from cssl_cli.features.probe.softmax_regression import SoftmaxRegression
from cssl_cli.host.randomness import stream


def blobs(sizes, *, width=4, seed=0, spread=1.5, dtype=torch.float64):
    """Overlapping Gaussian classes of the given sizes, in shuffled order."""
    generator = stream(seed, "blobs")
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    centers = torch.randn(len(sizes), width, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), width, generator=generator, dtype=torch.float64)
    return (centers[labels] + spread * noise).to(dtype), labels


def fit(features, labels, *, penalties=(0.01,), fraction=0.2, seed=0):
    return fit_linear(
        features, labels, penalties=penalties, validation_fraction=fraction, generator=stream(seed, "split")
    )


def independent_solution(features, labels, num_classes, penalty):
    """The same objective written afresh in NumPy and handed to SciPy."""
    x, y = features.numpy(), labels.numpy()
    rows = np.arange(len(y))

    def objective(flat):
        theta = flat.reshape(num_classes, -1)
        logits = x @ theta[:, :-1].T + theta[:, -1]
        log_normalizer = logsumexp(logits, axis=1)
        residual = np.exp(logits - log_normalizer[:, None])
        residual[rows, y] -= 1
        loss = (log_normalizer - logits[rows, y]).mean() + penalty / 2 * (theta[:, :-1] ** 2).sum()
        gradient = np.hstack([residual.T @ x / len(y) + penalty * theta[:, :-1], residual.mean(axis=0)[:, None]])
        return loss, gradient.ravel()

    start = np.zeros(num_classes * (x.shape[1] + 1))
    result = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 10_000})
    return result.x.reshape(num_classes, -1), result.fun


# ---------------------------------------------------------------------- the solver
@pytest.mark.parametrize("penalty", [1e-3, 0.03, 1.0, 100.0])
@pytest.mark.parametrize("sizes", [(20, 40), (15, 5, 30, 10)])
def test_the_solution_is_that_of_an_independent_solver(sizes, penalty):
    features, labels = blobs(sizes)
    problem = SoftmaxRegression(features, labels, len(sizes))
    solution = problem.solve(penalty, start=problem.zeros(), tolerance=1e-8)
    expected, _ = independent_solution(features, labels, len(sizes), penalty)
    assert solution.converged
    np.testing.assert_allclose(solution.theta, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("penalty", [1e-4, 0.01, 1.0])
def test_two_mirrored_points_solve_a_scalar_equation(penalty):
    problem = SoftmaxRegression(torch.tensor([[-1.0], [1.0]]).double(), torch.tensor([0, 1]), 2)
    theta = problem.solve(penalty, start=problem.zeros(), tolerance=1e-10).theta
    weight = theta[1, 0].item()
    assert theta.flatten().tolist() == pytest.approx([-weight, 0, weight, 0], abs=1e-9)
    assert expit(-2 * weight) == pytest.approx(penalty * weight, rel=1e-7)


def test_features_that_say_nothing_leave_the_class_frequencies():
    problem = SoftmaxRegression(torch.zeros(10, 3), torch.tensor([0] * 7 + [1] * 2 + [2]), 3)
    solution = problem.solve(0.1, start=problem.zeros(), tolerance=1e-6)
    assert solution.theta[:, -1].softmax(dim=0).tolist() == pytest.approx([0.7, 0.2, 0.1], rel=1e-4)
    assert (solution.theta[:, :-1] == 0).all()


def test_the_start_does_not_change_the_solution():
    features, labels = blobs((20, 30, 25))
    problem = SoftmaxRegression(features, labels, 3)
    from_zeros = problem.solve(0.01, start=problem.zeros(), tolerance=1e-9)
    start = 3 * torch.randn(problem.zeros().shape, generator=stream(0, "start"), dtype=torch.float64)
    start[:, -1] -= start[:, -1].mean()  # a shift common to all biases changes no probability
    elsewhere = problem.solve(0.01, start=start, tolerance=1e-9)
    torch.testing.assert_close(elsewhere.theta, from_zeros.theta, rtol=1e-5, atol=1e-6)
    assert problem.solve(0.01, start=from_zeros.theta, tolerance=1e-8).iterations == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("penalty", [1e-6, 1e-3])
def test_separable_and_strongly_correlated_features_converge(dtype, penalty):
    features, labels = blobs((100, 100, 100), width=3, spread=0.1)
    mixed = features @ torch.randn(3, 40, generator=stream(0, "mix"), dtype=torch.float64)
    mixed[:, 20:] = mixed[:, :20]  # exactly dependent
    standardized = Standardization.of(mixed).apply(mixed).to(dtype)
    problem = SoftmaxRegression(standardized, labels, 3)
    solution = problem.solve(penalty, start=problem.zeros(), tolerance=1e-5)
    assert solution.converged
    assert (problem.logits(solution.theta).argmax(dim=0) == labels).all()


@pytest.mark.parametrize("rank", [1, 25])
def test_more_features_than_images_and_a_tiny_penalty_converge(rank):
    features, labels = blobs((100, 100), width=rank, dtype=torch.float32)
    features = features @ torch.randn(rank, 400, generator=stream(0, "mix"))
    problem = SoftmaxRegression(Standardization.of(features).apply(features), labels, 2)
    assert problem.solve(1e-6, start=problem.zeros(), tolerance=1e-5).converged


@pytest.mark.parametrize("num_images", [9, 40, 60])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_the_span_of_few_images_the_solution_is_the_same(num_images, dtype, monkeypatch):
    generator = stream(0, "few images")
    features = torch.randn(num_images, 120, generator=generator, dtype=dtype)
    labels = torch.randint(3, (num_images,), generator=generator)
    labels[:3] = torch.arange(3)
    standardized = Standardization.of(features).apply(features)
    start = torch.cat([standardized[:3], torch.ones(3, 1)], dim=1).double()

    def solutions():
        problem = SoftmaxRegression(standardized, labels, 3)
        return [problem, *(problem.solve(0.1, start=start, tolerance=1e-6) for start in (problem.zeros(), start))]

    turned, *inside = solutions()
    assert turned.features.shape == (num_images, num_images)  # nothing of 120 x 120 is made
    assert turned.gram.shape == (num_images, num_images)
    monkeypatch.setattr("cssl_cli.features.probe.softmax_regression.FEATURES_PER_IMAGE", 1e9)
    given, *outside = solutions()
    assert given.gram.shape == (120, 120)
    for one, other in zip(inside, outside, strict=True):
        assert one.theta.shape == (3, 121)
        torch.testing.assert_close(one.theta, other.theta, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(turned.logits(one.theta), given.logits(other.theta), rtol=1e-3, atol=1e-4)
        assert one.converged
        assert dtype == torch.float32 or abs(one.iterations - other.iterations) <= 2  # else rounding decides the last


def test_an_iteration_limit_is_reported(monkeypatch):
    monkeypatch.setattr("cssl_cli.features.probe.softmax_regression.MAX_ITERATIONS", 2)
    classifier, report = fit(*blobs((20, 40)))
    assert report["converged"] is False
    assert report["iterations"] == 2
    assert report["warnings"] == ["the logistic regression stopped before it had converged"]
    assert classifier.predict(torch.zeros(1, 4).double()).shape == (1,)


# ---------------------------------------------------------------------- standardisation
def test_standardized_features_have_mean_zero_and_deviation_one_and_constants_vanish():
    features, _ = blobs((30, 30), dtype=torch.float32)
    rounding = torch.where(torch.arange(60) % 2 == 0, 1.0, 1 + torch.finfo(torch.float32).eps).unsqueeze(1)
    features = torch.cat([100 * features + 7, torch.full((60, 1), 0.1), torch.zeros(60, 1), rounding], dim=1)
    standardization = Standardization.of(features)
    standardized = standardization.apply(features)
    torch.testing.assert_close(standardized.mean(dim=0), torch.zeros(7), atol=1e-5, rtol=0)
    torch.testing.assert_close(standardized[:, :4].std(dim=0, correction=0), torch.ones(4))
    assert (standardized[:, 4:] == 0).all()
    assert (standardization.apply(features + 1)[:, 4:] == 0).all()


def test_predictions_ignore_scale_and_offset_of_each_feature():
    features, labels = blobs((40, 30, 30))
    other, _ = blobs((40, 30, 30), seed=1)
    scale, offset = torch.tensor([1e-3, 1.0, 50.0, -2.0]).double(), torch.tensor([5.0, -100.0, 0.0, 1.0]).double()
    plain, _ = fit(features, labels)
    changed, _ = fit(features * scale + offset, labels)
    assert torch.equal(plain.predict(other), changed.predict(other * scale + offset))


def test_float32_features_far_from_zero_lose_nothing():
    features, labels = blobs((60, 60, 60), dtype=torch.float32)
    plain, _ = fit(features, labels)
    offset, report = fit(features + 1000, labels)
    agreement = (plain.predict(features) == offset.predict(features + 1000)).float().mean()
    assert report["converged"]
    assert agreement > 0.98


# ---------------------------------------------------------------------- the fit as a whole
def test_renaming_the_classes_renames_the_predictions():
    features, labels = blobs((40, 30, 30))
    names = torch.tensor([5, 1, 3])
    plain, _ = fit(features, labels)
    renamed, _ = fit(features, names[labels])
    assert torch.equal(names[plain.predict(features)], renamed.predict(features))


def test_the_final_fit_uses_every_training_image_and_the_chosen_penalty():
    features, labels = blobs((40, 30, 30))
    classifier, report = fit(features, labels, penalties=(1e-3, 1e-1, 10.0))
    standardized = Standardization.of(features).apply(features)
    expected, _ = independent_solution(standardized, labels, 3, report["penalty"])
    np.testing.assert_allclose(classifier.theta, expected, rtol=1e-3, atol=1e-4)


def test_the_penalty_is_the_best_on_the_held_out_images():
    features, labels = blobs((60, 60, 60), width=30, spread=4)
    penalties = (1e-4, 1e-2, 1.0, 1e3)
    _, report = fit(features, labels, penalties=penalties, fraction=0.25, seed=3)
    held_out = split_validation(labels, fraction=0.25, generator=stream(3, "split"))
    accuracies = {}
    for penalty in penalties:
        classifier, _ = fit(features[~held_out], labels[~held_out], penalties=(penalty,))
        accuracies[penalty] = (classifier.predict(features[held_out]) == labels[held_out]).double().mean().item()
    assert len(set(accuracies.values())) > 1
    assert report["validation_accuracy"] == pytest.approx(max(accuracies.values()))
    assert report["penalty"] == max(p for p in penalties if accuracies[p] == max(accuracies.values()))


@pytest.mark.parametrize(
    ("penalties", "expected"),
    [((1e-6, 1e3), True), ((1e3,), False), ((1e-6, 1e-3, 1e3), None), ((1e3, 1e4, 1e5), True)],
)
def test_a_penalty_at_the_edge_of_the_grid_is_reported(penalties, expected):
    features, labels = blobs((60, 60, 60), width=30, spread=4)
    _, report = fit(features, labels, penalties=penalties)
    expected = report["penalty"] in (penalties[0], penalties[-1]) if expected is None else expected
    assert report["penalty_at_grid_edge"] is expected
    assert any("edge of probe.penalties" in sentence for sentence in report["warnings"]) is expected


def test_equal_accuracies_choose_the_strongest_penalty():
    features, labels = blobs((30, 30), spread=1e-3)
    _, report = fit(features, labels, penalties=(1e-3, 1e-2, 1e-1))
    assert report["validation_accuracy"] == 1
    assert report["penalty"] == 0.1


def test_one_class_and_one_image_classes_are_fitted():
    classifier, report = fit(torch.randn(5, 2, generator=stream(0, "x")), torch.full((5,), 3), penalties=(0.1, 1.0))
    assert (classifier.predict(torch.zeros(4, 2)) == 3).all()
    assert report["converged"]
    corners = torch.tensor([[0.0, 0], [1, 0], [0, 1]])
    classifier, report = fit(corners, torch.tensor([2, 0, 1]), penalties=(1e-3, 1e-2))
    assert classifier.predict(corners).tolist() == [2, 0, 1]
    assert (report["validation_accuracy"], report["penalty"], report["penalty_at_grid_edge"]) == (None, 1e-2, False)


def test_features_from_inference_mode_are_accepted():
    with torch.inference_mode():
        features, labels = blobs((20, 20))
    classifier, report = fit(features, labels, penalties=(1e-2, 1.0))
    assert report["converged"]
    assert classifier.predict(features).shape == (40,)


# ---------------------------------------------------------------------- the split
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.99])
def test_the_split_holds_out_a_share_of_every_class_and_never_all(fraction):
    sizes = (50, 2, 1, 11)
    labels = torch.arange(4).repeat_interleave(torch.tensor(sizes))
    held_out = split_validation(labels, fraction=fraction, generator=stream(0, "split"))
    for label, size in enumerate(sizes):
        number = int(held_out[labels == label].sum())
        assert number == (0 if size == 1 else min(max(1, round(fraction * size)), size - 1))


def test_the_split_belongs_to_its_generator():
    labels = torch.arange(3).repeat_interleave(40)
    masks = [split_validation(labels, fraction=0.5, generator=stream(seed, "split")) for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_the_logits_survive_many_iterations_without_drift():
    features, labels = blobs((200, 200, 200), width=20, dtype=torch.float32)
    problem = SoftmaxRegression(features - features.mean(dim=0), labels, 3)
    solution = problem.solve(1e-5, start=problem.zeros(), tolerance=1e-6)
    _, loss = independent_solution((features - features.mean(dim=0)).double(), labels, 3, 1e-5)
    logits = problem.logits(solution.theta)
    reached = torch.nn.functional.cross_entropy(logits.T.double(), labels).item()
    reached += 1e-5 / 2 * solution.theta[:, :-1].square().sum().item()
    assert reached == pytest.approx(loss, rel=1e-6)
