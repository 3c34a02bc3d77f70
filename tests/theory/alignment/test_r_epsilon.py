"""R_ε by number of views, and its bounds from alignment: against loops, grids and laws known in closed form."""

import itertools
import json
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cssl_cli.theory.alignment.r_epsilon import diameters, growing_diameters, r_epsilon
from cssl_cli.theory.alignment.r_epsilon_bounds import r_epsilon_bounds
from cssl_cli.theory.alignment.theorem_2 import eta_paper, eta_sharp, log_eta_paper, log_eta_sharp, parameter_ratio
from cssl_cli.theory.estimate import Absent
from cssl_cli.theory.table import FeatureTable
from tests.support import reference_losses as reference

EPSILONS = (0.2, 0.5, 1.0, 1.9)
seeds = st.integers(0, 2**32 - 1)


def table_of(features):
    return FeatureTable.build(torch.as_tensor(features), None, [])


def bounds_of(
    features, epsilons=EPSILONS, *, num_parameters=None, num_discrete=0, lipschitz=None, more_views=(16, 64, 256)
):
    return r_epsilon_bounds(
        table_of(features),
        epsilons,
        num_parameters=num_parameters,
        num_discrete=num_discrete,
        lipschitz=lipschitz,
        more_views=more_views,
    )


# ---------------------------------------------------------------------- by number of views
@pytest.mark.parametrize("seed", range(5))
def test_curves_by_views_agree_with_loops(seed):
    features, _ = reference.random_table(np.random.default_rng(seed), num_views=5)
    measured = r_epsilon(table_of(features), EPSILONS)
    curves, means = [], []
    for count in range(2, 6):
        choices = [features[:, [0, *views]] for views in itertools.combinations(range(1, 5), count - 1)]
        curves.append([np.mean([reference.rate(choice, epsilon) for choice in choices]) for epsilon in EPSILONS])
        means.append(np.mean([reference.diameter(image) for choice in choices for image in choice]))
    assert np.array(measured["curve_by_views"].value) == pytest.approx(np.array(curves))
    assert measured["mean_diameter_by_views"].value == pytest.approx(means)
    assert measured["curve"].value == measured["curve_by_views"].value[-1]


def test_of_many_views_the_first_are_taken():
    features, _ = reference.random_table(np.random.default_rng(0), num_views=14)
    measured = r_epsilon(table_of(features), EPSILONS)
    expected = [[reference.rate(features[:, :views], epsilon) for epsilon in EPSILONS] for views in range(2, 15)]
    assert np.array(measured["curve_by_views"].value) == pytest.approx(np.array(expected))
    assert "first" in measured["curve_by_views"].estimator


def test_blocks_change_nothing(monkeypatch):
    features, _ = reference.random_table(np.random.default_rng(1), num_views=5, sizes=[5, 6])
    whole = r_epsilon(table_of(features), EPSILONS)
    monkeypatch.setattr(sys.modules["cssl_cli.theory.alignment.r_epsilon"], "BLOCK_NUMBERS", 40)
    parts = r_epsilon(table_of(features), EPSILONS)
    for name in ("curve_by_views", "mean_diameter_by_views"):
        assert np.array(parts[name].value) == pytest.approx(np.array(whole[name].value))


@given(seeds)
@settings(max_examples=150)
def test_diameters_never_shrink_with_views(seed):
    features = torch.as_tensor(reference.random_table(np.random.default_rng(seed), num_views=6)[0])
    growing = growing_diameters(features)
    assert (growing.diff(dim=1) >= 0).all()
    assert (growing[:, 0] == 0).all()
    assert torch.equal(growing[:, -1], diameters(features))
    measured = r_epsilon(table_of(features), EPSILONS)
    for name in ("curve_by_views", "mean_diameter_by_views"):
        assert (np.diff(measured[name].value, axis=0) >= -1e-12).all()


def test_one_view_has_no_diameter():
    measured = r_epsilon(table_of(np.ones((3, 1, 2))), EPSILONS)
    assert set(measured) == {
        "epsilons",
        "curve",
        "diameter_quantiles",
        "curve_by_views",
        "mean_diameter_by_views",
    }
    assert all(isinstance(quantity, Absent) for quantity in measured.values())


# ---------------------------------------------------------------------- bounds from the table's alignment
def test_bounds_hold_on_random_tables():
    informative = {"stored_views": 0, "iid_views": 0, "converse": 0}

    @given(seeds, st.integers(3, 5), st.sampled_from([1.0, 0.3, 7.0]))
    @settings(max_examples=150)
    def check(seed, num_views, factor):
        features = factor * reference.random_table(np.random.default_rng(seed), num_views=num_views)[0]
        scale = np.linalg.norm(features[0, 0])
        epsilons = (np.array(EPSILONS) * scale).tolist()
        bounds = bounds_of(features, epsilons)
        curve = np.array(r_epsilon(table_of(features), epsilons)["curve"].value)
        augmented = np.array([reference.rate(features[:, 1:], epsilon) for epsilon in epsilons])
        assert (curve <= np.array(bounds["stored_views"].value) + 1e-9).all()
        assert (augmented <= np.array(bounds["iid_views"].value) + 1e-9).all()
        assert (augmented >= np.array(bounds["converse"].value) - 1e-9).all()
        for name in informative:
            informative[name] += not bounds[name].vacuous

    check()
    assert all(count > 12 for count in informative.values()), informative


@pytest.mark.parametrize("seed", range(3))
def test_bounds_are_the_formulas(seed):
    features, _ = reference.random_table(np.random.default_rng(seed), num_views=5)
    bounds = bounds_of(features)
    stored, augmented = reference.alignment(features), reference.alignment(features[:, 1:])
    assert bounds["stored_views"].value == pytest.approx([4 * stored / e**2 for e in EPSILONS])
    assert bounds["iid_views"].value == pytest.approx([3 * augmented / e**2 for e in EPSILONS])
    assert bounds["converse"].value == pytest.approx([max(0, (augmented - e**2) / (4 - e**2)) for e in EPSILONS])
    rates = [reference.rate(features[:, 1:], epsilon) for epsilon in EPSILONS]
    for views in (16, 64, 256):
        factor = math.comb(views, 2) / math.comb(4, 2)
        assert bounds["more_views"].value[str(views)] == pytest.approx([factor * r for r in rates])


def test_two_views_at_one_distance_meet_the_bound():
    features = np.array([[[0.0], [0.6]], [[1.0], [0.4]]])
    bounds = bounds_of(features, (0.6,))
    assert bounds["stored_views"].value == pytest.approx([1.0])


def test_the_converse_is_met_by_antipodal_views():
    image = np.array([1.0, 0.0])
    features = np.stack([np.stack([image, image, -image])] * 3 + [np.stack([image, image, image])])
    assert bounds_of(features, (1e-6,))["converse"].value == pytest.approx([0.75])


@pytest.mark.parametrize("share", [0.0005, 0.05, 0.4])
@pytest.mark.parametrize("stored", [2, 3, 7])
def test_more_views_stay_below_the_extrapolation(share, stored):
    def two_points(views):  # masses share and 1 − share
        return 1 - share**views - (1 - share) ** views

    def two_rare_ends(views):  # masses share at either end, the rest half way, ε above half the length
        return 1 - 2 * (1 - share) ** views + (1 - 2 * share) ** views

    features = np.zeros((1, 1 + stored, 1))
    features[:, 1] = 1  # R_ε of the table is 1, so that the value is the factor
    factors = bounds_of(features, (0.5,), more_views=(8, 16, 300))["more_views"].value
    for views, (factor,) in factors.items():
        for rate in (two_points, two_rare_ends):
            assert rate(int(views)) <= factor * rate(stored) + 1e-12
        if share == 0.0005 and int(views) <= 16:
            assert two_rare_ends(int(views)) == pytest.approx(factor * two_rare_ends(stored), rel=0.02)


def test_more_views_only_where_there_are_more():
    features = np.zeros((4, 21, 2))
    bounds = bounds_of(features, more_views=(16, 64))["more_views"]
    assert list(bounds.value) == ["64"]
    # No image exceeds ε, and the interval says how little that means.
    assert bounds.value["64"] == [0.0] * len(EPSILONS)
    assert bounds.interval["64"][0][1] > 1
    assert isinstance(bounds_of(features, more_views=(16,))["more_views"], Absent)


# ---------------------------------------------------------------------- Theorem 2
def literal(epsilon, m, n, slope_lm, power, h):
    """The functions under the infima of Theorem 2 (power 2) and its sharper form (power 1)."""
    room = epsilon - 2 * math.sqrt(n) * slope_lm * h
    if power == 2:
        return 4 * np.maximum(1, m**2 * h ** (2 * n)) / (h ** (2 * n) * room)
    return 2 * np.maximum(1, m * h**n) / (h**n * room**2)


@pytest.mark.parametrize("m", [0, 1, 5, 40])
@pytest.mark.parametrize("n", [1, 2, 5, 12, 20])
@pytest.mark.parametrize("lm", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.7])
def test_the_infima_are_found(m, n, lm, epsilon):
    end = min(1.0, epsilon / (2 * math.sqrt(n) * lm))
    h = np.concatenate([np.linspace(0, end, 20001)[1:-1], end * np.geomspace(1e-6, 1, 2000)[:-1]])
    if end == 1.0 and 2 * math.sqrt(n) * lm < epsilon:
        h = np.append(h, 1.0)
    for power, function in ((2, eta_paper), (1, eta_sharp)):
        with np.errstate(divide="ignore", over="ignore"):
            least = literal(epsilon, m, n, lm, power, h).min()
        assert least * (1 - 2e-3) <= function(epsilon, m, n, lm) <= least * (1 + 1e-12)


def test_alignment_needed_for_a_small_rate():
    needed = {n: (0.1 / eta_paper(0.5, 5, n, 1.0)) ** 2 for n in (1, 5)}
    sharp = {n: 0.1 / eta_sharp(0.5, 5, n, 1.0) for n in (1, 5)}
    assert needed[1] == pytest.approx(1.3e-8, rel=0.05)
    assert sharp[1] == pytest.approx(4.6e-4, rel=0.05)
    assert 1e-27 < needed[5] < 1e-25
    assert sharp[5] == pytest.approx(3e-9, rel=0.2)


@given(st.integers(0, 8), st.integers(1, 7), st.floats(-3, 1), st.floats(0.05, 2))
@settings(max_examples=200)
def test_the_sharp_bound_is_smaller_wherever_the_paper_s_says_something(m, n, log_lm, epsilon):
    lm = 10**log_lm
    paper, sharp = log_eta_paper(epsilon, m, n, lm), log_eta_sharp(epsilon, m, n, lm)
    # The paper's bound is at most 1 for alignments up to η⁻², where the sharp one must be less than it.
    at = -2 * paper
    for log_alignment in (at, at - 5, at - 50):
        assert sharp + log_alignment <= paper + log_alignment / 2 + 1e-9


def test_theorem_2_holds_for_laws_known_in_closed_form():
    """On the line: f = LM θ with θ uniform on [0, 1], and m atoms; an image has diam > ε or not, so R_ε is 0 or 1."""
    tightest = math.inf

    @given(st.lists(st.floats(-1, 1), max_size=5), st.floats(-2, 0), st.floats(-3, 0.5))
    @settings(max_examples=250)
    def check(places, log_scale, log_lm):
        nonlocal tightest
        m, lm, atoms = len(places), 10**log_lm, np.array(places) * 10**log_scale
        share = 0.5 if m else 1.0
        mean = share * lm / 2 + (1 - share) * (atoms.mean() if m else 0)
        square = share * lm**2 / 3 + (1 - share) * ((atoms**2).mean() if m else 0)
        log_alignment = math.log(2 * (square - mean**2))
        ends = [0.0, lm, *atoms]
        epsilon = (max(ends) - min(ends)) * 0.999
        for bound in (
            log_eta_paper(epsilon, m, 1, lm) + log_alignment / 2,
            log_eta_sharp(epsilon, m, 1, lm) + log_alignment,
        ):
            assert bound >= 0
            tightest = min(tightest, bound)

    check()
    assert tightest < math.log(10)


def test_theorem_2_on_a_table():
    features, _ = reference.random_table(np.random.default_rng(0), num_views=4)
    alignment = reference.alignment(features[:, 1:])
    bounds = bounds_of(features, num_parameters=3, num_discrete=2, lipschitz=0.7)
    assert bounds["theorem_2"].value == pytest.approx(
        [eta_paper(epsilon, 2, 3, 0.7) * math.sqrt(alignment) for epsilon in EPSILONS]
    )
    assert bounds["theorem_2_sharp"].value == pytest.approx(
        [eta_sharp(epsilon, 2, 3, 0.7) * alignment for epsilon in EPSILONS]
    )
    assert bounds["theorem_2"].errs == "low"
    assert bounds["theorem_2"].vacuous


def test_what_overflows_is_named():
    features, _ = reference.random_table(np.random.default_rng(0), num_views=4, kind="noise")
    bounds = bounds_of(features, (0.0, 1e-8, 1.0), num_parameters=20, num_discrete=0, lipschitz=1e3)
    assert bounds["theorem_2"].value[:2] == [None, None]
    assert set(bounds["theorem_2"].absent) >= {"epsilon 0", "epsilon 1e-08"}
    assert bounds["stored_views"].value[0] is None
    json.dumps({name: quantity.to_dict() for name, quantity in bounds.items()}, allow_nan=False)


def test_perfect_alignment():
    bounds = bounds_of(np.ones((3, 4, 2)), num_parameters=2, num_discrete=1, lipschitz=0.1)
    for name in ("stored_views", "iid_views", "converse", "theorem_2", "theorem_2_sharp"):
        assert bounds[name].value == [0.0] * len(EPSILONS)
    zero = bounds_of(np.zeros((3, 4, 2)))
    assert zero["converse"].value == [0.0] * len(EPSILONS)


@pytest.mark.parametrize(
    ("views", "parameters", "lipschitz", "absent"),
    [
        (
            1,
            3,
            1.0,
            {
                "stored_views",
                "iid_views",
                "converse",
                "more_views",
                "theorem_2",
                "theorem_2_sharp",
                "theorem_2_constants",
            },
        ),
        (2, 3, 1.0, {"iid_views", "converse", "more_views", "theorem_2", "theorem_2_sharp", "theorem_2_constants"}),
        (3, None, 1.0, {"theorem_2", "theorem_2_sharp", "theorem_2_constants"}),
        (3, 0, 1.0, {"theorem_2", "theorem_2_sharp", "theorem_2_constants"}),
        (3, 3, None, {"theorem_2", "theorem_2_sharp", "theorem_2_constants"}),
        (3, 3, 0.0, {"theorem_2", "theorem_2_sharp", "theorem_2_constants"}),
        (3, 3, 1.0, set()),
    ],
)
def test_what_a_table_cannot_give(views, parameters, lipschitz, absent):
    features = np.random.default_rng(0).normal(size=(4, views, 2))
    bounds = bounds_of(features, num_parameters=parameters, lipschitz=lipschitz)
    assert {name for name, quantity in bounds.items() if isinstance(quantity, Absent)} == absent


# ---------------------------------------------------------------------- the largest ratio seen
def test_the_largest_ratio_agrees_with_loops():
    random = np.random.default_rng(0)
    theta, features = random.uniform(size=(5, 4, 3)), random.normal(size=(5, 4, 2))
    largest = max(
        math.dist(f[i], f[j]) / math.dist(t[i], t[j])
        for t, f in zip(theta, features, strict=True)
        for i in range(4)
        for j in range(i)
    )
    assert parameter_ratio(torch.as_tensor(theta), torch.as_tensor(features)) == pytest.approx(largest)


def test_equal_parameters_give_no_ratio():
    theta = torch.ones(3, 4, 2)
    assert parameter_ratio(theta, torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))) == 0.0
    assert parameter_ratio(theta[:, :1], torch.ones(3, 1, 5)) == 0.0
    assert parameter_ratio(torch.rand(3, 0, 2), torch.ones(3, 0, 5)) == 0.0
