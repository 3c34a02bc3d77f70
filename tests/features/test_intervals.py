"""Intervals: closed forms, and coverage by simulation within Monte-Carlo error."""

import math

import pytest
import torch
from scipy import stats

from cssl_cli.features.intervals import (
    MIN_BOOTSTRAP_IMAGES,
    band_factor,
    bootstrap_interval,
    bootstrap_weights,
    replicate,
)
from cssl_cli.features.proportions import clopper_pearson
from cssl_cli.host.randomness import stream


def one_stratum(n):
    return torch.zeros(n, dtype=torch.int64)


@pytest.mark.parametrize("n", [1, 7, 500])
def test_clopper_pearson_closed_forms_at_the_ends(n):
    assert clopper_pearson(0, n) == (0.0, pytest.approx(1 - 0.025 ** (1 / n)))
    assert clopper_pearson(n, n) == (pytest.approx(0.025 ** (1 / n)), 1.0)
    assert clopper_pearson(0, n, side="upper") == (0.0, pytest.approx(1 - 0.05 ** (1 / n)))
    assert clopper_pearson(n, n, side="lower") == (pytest.approx(0.05 ** (1 / n)), 1.0)
    assert clopper_pearson(n, n, side="upper") == (0.0, 1.0)


def test_clopper_pearson_without_trials_says_nothing():
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("successes", "n", "confidence"), [(3, 20, 0.95), (499, 500, 0.9), (50, 100, 0.99)])
def test_clopper_pearson_inverts_the_binomial_tails(successes, n, confidence):
    low, high = clopper_pearson(successes, n, confidence)
    assert stats.binom.sf(successes - 1, n, low) == pytest.approx((1 - confidence) / 2)
    assert stats.binom.cdf(successes, n, high) == pytest.approx((1 - confidence) / 2)
    one_sided_low, _ = clopper_pearson(successes, n, confidence, side="lower")
    assert stats.binom.sf(successes - 1, n, one_sided_low) == pytest.approx(1 - confidence)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5, 0.97])
def test_clopper_pearson_covers_at_least_as_often_as_it_says(p):
    n = 40
    intervals = [clopper_pearson(count, n) for count in range(n + 1)]
    covered = sum(stats.binom.pmf(count, n, p) for count, (low, high) in enumerate(intervals) if low <= p <= high)
    assert covered >= 0.95


def test_weights_have_mean_one_in_every_stratum_and_leave_small_strata_alone():
    strata = torch.tensor([0] * 5 + [3] * 2 + [1] * 4)
    weights = bootstrap_weights(strata, replicates=50, generator=stream(0, "weights"))
    for stratum, size in ((0, 5), (1, 4)):
        torch.testing.assert_close(weights[:, strata == stratum].sum(dim=1), torch.full((50,), float(size)).double())
        assert (weights[:, strata == stratum].std(dim=0) > 0).all()
    assert (weights[:, strata == 3] == 1).all()
    assert MIN_BOOTSTRAP_IMAGES == 3
    assert (weights > 0).all()


def test_weights_belong_to_their_generator():
    def draw(purpose):
        return bootstrap_weights(one_stratum(6), replicates=3, generator=stream(0, purpose))

    assert torch.equal(draw("a"), draw("a"))
    assert not torch.equal(draw("a"), draw("b"))


@pytest.mark.parametrize("n", [3, 4, 30])
def test_the_variance_of_a_resampled_mean_is_the_unbiased_one(n):
    values = torch.randn(n, generator=stream(n, "values"), dtype=torch.float64)
    replicates = 40_000
    means = bootstrap_weights(one_stratum(n), replicates=replicates, generator=stream(n, "resample")) @ values / n
    variances = (means - values.mean()).square()
    expected = values.var().item() / n
    assert variances.mean().item() == pytest.approx(expected, abs=5 * variances.std().item() / math.sqrt(replicates))


@pytest.mark.parametrize("skewed", [False, True])
def test_bootstrap_interval_of_a_stratified_mean_covers(skewed):
    generator, tables, sizes = stream(7, "coverage"), 300, (12, 25)
    strata = torch.tensor([0] * sizes[0] + [1] * sizes[1])
    covered = 0
    for _ in range(tables):
        values = torch.empty(sum(sizes), dtype=torch.float64)
        values = values.exponential_(generator=generator) if skewed else values.normal_(1, 1, generator=generator)
        values = values + 5 * strata  # the spread between strata is not the interval's business
        weights = bootstrap_weights(strata, replicates=200, generator=generator)
        means = replicate(lambda rows, x=values: {"m": (rows @ x) / len(x)}, weights)["m"]
        low, high = bootstrap_interval(values.mean().item(), means, degrees=sum(sizes) - 2)
        covered += low <= 1 + 5 * sizes[1] / sum(sizes) <= high
    # Small samples cost a few per cent; 300 tables leave a standard error of 1.3 %.
    assert 0.89 <= covered / tables <= 0.99


@pytest.mark.parametrize(("confidence", "half"), [(0.95, 47.5), (0.5, 25)])
@pytest.mark.parametrize("degrees", [1, 9, 10**7])
def test_the_interval_of_a_known_sequence_is_its_percentiles_times_student_over_normal(confidence, half, degrees):
    found = bootstrap_interval(50.0, torch.arange(101.0, dtype=torch.float64), degrees=degrees, confidence=confidence)
    wider = stats.t.ppf((1 + confidence) / 2, degrees) / stats.norm.ppf((1 + confidence) / 2)
    assert found == (pytest.approx(50 - wider * half), pytest.approx(50 + wider * half))


def test_an_interval_holds_its_number_and_nothing_below_the_least_or_above_the_most():
    replicates = torch.linspace(1, 2, 101, dtype=torch.float64)
    assert bootstrap_interval(0.5, replicates, degrees=5)[0] == 0.5
    assert bootstrap_interval(2.5, replicates, degrees=5)[1] == 2.5
    assert bootstrap_interval(1.9, replicates, degrees=1, least=0)[0] == 0
    assert bootstrap_interval(-0.1, replicates - 1.6, degrees=1, least=0)[0] == -0.1
    assert bootstrap_interval(-0.5, replicates - 2.1, degrees=10**7, least=0) is None
    assert bootstrap_interval(1.1, replicates, degrees=1, most=3)[1] == 3
    assert bootstrap_interval(2.6, replicates, degrees=1, most=2.5)[1] == 2.6


def test_no_interval_from_undefined_or_too_few_replicates():
    enough = torch.arange(20, dtype=torch.float64)
    assert bootstrap_interval(1.0, enough, degrees=3) is not None
    assert bootstrap_interval(math.nan, enough, degrees=3) is None
    assert bootstrap_interval(1.0, torch.cat([enough, torch.tensor([math.nan])]), degrees=3) is None
    assert bootstrap_interval(1.0, enough[:19], degrees=3) is None
    assert band_factor(enough[:2], enough[:19, None].repeat(1, 2), degrees=3) is None


def test_a_band_is_the_quantile_of_the_largest_deviation():
    generator = stream(3, "band")
    values = torch.zeros(3, dtype=torch.float64)
    replicates = torch.randn(1000, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 5.0, 0.0])
    # Two independent normal numbers: P[both within c] = 0.95 at c = 2.236; the third does not vary.
    assert band_factor(values, replicates, degrees=10**7) == pytest.approx(2.236, abs=0.15)
    assert band_factor(values[2:], replicates[:, 2:], degrees=3) == 0


def test_replicates_do_not_depend_on_how_the_rows_are_blocked():
    weights = bootstrap_weights(one_stratum(9), replicates=60, generator=stream(1, "rows"))
    values = torch.arange(9, dtype=torch.float64)
    got = replicate(lambda rows: {"one": rows @ values, "many": rows[:, :2]}, weights)
    torch.testing.assert_close(got["one"], weights @ values)
    torch.testing.assert_close(got["many"], weights[:, :2])
