"""What the estimators promise of a population: unbiasedness, and intervals that cover, by simulation."""

import math

import torch

from cssl_cli.features.intervals import bootstrap_weights
from cssl_cli.host.randomness import stream
from cssl_cli.theory.alignment.alignment import alignment
from cssl_cli.theory.analysis import FeatureTable, LossSettings, analyze_table
from cssl_cli.theory.divergence.class_centers import class_centers
from cssl_cli.theory.divergence.spread import spread
from cssl_cli.theory.losses.cross_correlation import cross_correlation, standardized_table
from cssl_cli.theory.losses.nt_xent import nt_xent
from cssl_cli.theory.table import class_moments

WIDTH, IMAGE_SD, VIEW_SD = 3, 0.8, 0.6
NEAR, FAR = (0.2, 0.0, 0.0), (0.0, 0.9, 0.3)
MONTE_CARLO = 4  # standard errors that a simulated mean may be off


def draw_table(centers, *, images_of_each, seed, num_views=3):
    """Gaussian images about a center (K, D) for each class, Gaussian views about them, a clean view from elsewhere.

    Every class is a sample of its own, so that one table of many classes is many independent tables.
    """
    generator = stream(seed, "table")
    centers = torch.as_tensor(centers, dtype=torch.float64)
    labels = torch.arange(len(centers)).repeat_interleave(images_of_each)

    def noise(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    images = centers[labels] + IMAGE_SD * noise(len(labels), WIDTH)
    features = images.unsqueeze(1) + VIEW_SD * noise(len(labels), num_views, WIDTH)
    features[:, 0] = 5
    return FeatureTable.build(features, labels, [str(k) for k in range(len(centers))])


def resamples(table, *, replicates=200, seed=0):
    return bootstrap_weights(table.labels, replicates=replicates, generator=stream(seed, "bootstrap"))


def analyze(features, labels, *, bootstrap, seed=0):
    return analyze_table(
        features,
        labels,
        class_names=["a", "b"],
        epsilons=[1.0],
        bootstrap=bootstrap,
        loss=LossSettings(temperature=0.5, batch_size=64),
        generator=stream(seed, "bootstrap"),
        only=("alignment", "R_epsilon", "class_centers", "spread"),
    )


def each_class(quantity):
    return torch.tensor(list(quantity.value.values()), dtype=torch.float64)


def standard_errors_off(samples, truth):
    return abs(((samples.mean() - truth) / (samples.std() / math.sqrt(len(samples)))).item())


def coverage(quantity, truth):
    intervals = quantity.interval.values()
    return sum(low <= truth <= high for low, high in intervals) / len(intervals)


# ---------------------------------------------------------------------- unbiased
def test_within_class_terms_hit_the_population_on_average_where_plug_in_forms_miss_it():
    table = draw_table([NEAR] * 1000, images_of_each=3, seed=1)
    per_class = alignment(table, None, None)["per_class"]
    assert standard_errors_off(each_class(per_class), 2 * WIDTH * VIEW_SD**2) < MONTE_CARLO
    spreads = spread(table, None)
    assert standard_errors_off(each_class(spreads["within_per_class"]), WIDTH * IMAGE_SD**2) < MONTE_CARLO
    views = each_class(spreads["within_views_per_class"])
    assert standard_errors_off(views, WIDTH * (IMAGE_SD**2 + VIEW_SD**2)) < MONTE_CARLO

    by_class = table.view_means.unflatten(0, (-1, 3))
    plug_in = (by_class - by_class.mean(dim=1, keepdim=True)).square().sum(dim=2).mean(dim=1)
    assert standard_errors_off(plug_in, WIDTH * IMAGE_SD**2) > 2 * MONTE_CARLO
    assert standard_errors_off(each_class(per_class) / 2, 2 * WIDTH * VIEW_SD**2) > 2 * MONTE_CARLO


def test_center_geometry_hits_the_population_on_average_where_plug_in_forms_miss_it():
    pairs = 200
    table = draw_table([NEAR, FAR] * pairs, images_of_each=3, seed=2)
    centers = class_centers(table, None)
    near, far = torch.tensor(NEAR), torch.tensor(FAR)
    first, second = torch.arange(0, 2 * pairs, 2), torch.arange(1, 2 * pairs, 2)
    plug_in = table.view_means.unflatten(0, (-1, 3)).mean(dim=1)

    squared_norms = each_class(centers["squared_norms"])[first]
    assert standard_errors_off(squared_norms, near.square().sum()) < MONTE_CARLO
    assert standard_errors_off(plug_in[first].square().sum(dim=1), near.square().sum()) > 2 * MONTE_CARLO

    squared_distances = torch.tensor(centers["squared_distances"].value)[first, second]
    differences = (plug_in[first] - plug_in[second]).square().sum(dim=1)
    assert standard_errors_off(squared_distances, (near - far).square().sum()) < MONTE_CARLO
    assert standard_errors_off(differences, (near - far).square().sum()) > 2 * MONTE_CARLO

    products = torch.tensor(centers["inner_products"].value)[first, second]
    assert standard_errors_off(products, near @ far) < MONTE_CARLO


# ---------------------------------------------------------------------- biased, and said to be
def of_tables(measure, centers, *, images_of_each, count, seed):
    """The quantity that `measure` gives of many tables, and how it is said to err."""
    found = [measure(draw_table(centers, images_of_each=images_of_each, seed=seed + n)) for n in range(count)]
    return torch.tensor([quantity.value for quantity in found]), {quantity.errs for quantity in found}


def test_the_alignment_of_features_standardised_by_few_images_is_too_high_and_not_called_unbiased():
    def measure(table):
        standardized = FeatureTable(standardized_table(table.features), table.labels, table.class_names)
        return cross_correlation(standardized)["alignment"]

    # Of a population: twice the share of the views in the variance of each coordinate.
    between = (torch.tensor(NEAR) - torch.tensor(FAR)).square() / 4
    truth = (2 * VIEW_SD**2 / (IMAGE_SD**2 + VIEW_SD**2 + between)).sum()
    few, errs = of_tables(measure, [NEAR, FAR], images_of_each=2, count=60, seed=10)
    assert few.mean() > truth
    assert standard_errors_off(few, truth) > 2 * MONTE_CARLO
    assert errs == {"consistent"}


def test_the_gap_of_nt_xent_to_its_floor_is_too_small_of_few_images_and_not_called_unbiased():
    def measure(table):
        found = nt_xent(table, temperature=1.0, batch_size=2, num_batches=4, generator=stream(0, "batches"))
        return found["collapse_gap"]

    # Of one class, to spare the search for a bound.
    few, errs = of_tables(measure, [FAR], images_of_each=2, count=200, seed=200)
    many, _ = of_tables(measure, [FAR], images_of_each=500, count=10, seed=400)
    assert few.mean() < many.mean()
    assert standard_errors_off(few, many.mean()) > 2 * MONTE_CARLO
    assert errs == {"consistent"}


# ---------------------------------------------------------------------- intervals
def test_bootstrap_intervals_cover_the_population():
    table = draw_table([NEAR] * 200, images_of_each=50, seed=3)
    weights = resamples(table)
    # 200 classes leave a standard error of 1.5 %, and 50 images cost the percentile interval of a variance 2 %.
    spreads = spread(table, weights)
    assert 0.88 <= coverage(alignment(table, None, weights)["per_class"], 2 * WIDTH * VIEW_SD**2) <= 0.99
    assert 0.88 <= coverage(spreads["within_per_class"], WIDTH * IMAGE_SD**2) <= 0.99
    assert 0.88 <= coverage(spreads["within_views_per_class"], WIDTH * (IMAGE_SD**2 + VIEW_SD**2)) <= 0.99


def test_replicates_are_centred_on_the_unbiased_form():
    table = draw_table([FAR], images_of_each=12, seed=4)

    def squared_norms(weights):
        moments = class_moments(table, weights)
        plug_in = moments.centers.square().sum(dim=2)
        return plug_in.squeeze(1), (plug_in - moments.center_errors).squeeze(1)

    _, measured = squared_norms(torch.ones(1, 12, dtype=torch.float64))
    plug_in, unbiased = squared_norms(resamples(table, replicates=20_000))
    assert standard_errors_off(unbiased, measured) < MONTE_CARLO
    assert standard_errors_off(plug_in, measured) > 2 * MONTE_CARLO


def test_intervals_of_squared_norms_cover_the_population():
    table = draw_table([FAR] * 100, images_of_each=40, seed=4)
    quantity = class_centers(table, resamples(table))["squared_norms"]
    # 100 classes leave a standard error of 2.2 %.
    assert 0.87 <= coverage(quantity, torch.tensor(FAR).square().sum().item()) <= 1


def test_every_interval_holds_its_value_and_comes_from_the_generator():
    table = draw_table([NEAR, FAR], images_of_each=200, seed=5)
    names = {
        "alignment": ("unbiased", "plug_in"),
        "class_centers": ("mean_inner_product", "closest_pair", "largest_inner_product"),
        "spread": ("within", "within_views", "between", "ratio"),
    }

    def intervals(seed):
        analysis = analyze(table.features, table.labels, bootstrap=100, seed=seed)
        quantities = [analysis[term][name] for term, chosen in names.items() for name in chosen]
        for quantity in quantities:
            assert quantity.interval[0] < quantity.value < quantity.interval[1]
        return [quantity.interval for quantity in quantities]

    assert intervals(1) == intervals(1)
    assert intervals(1) != intervals(2)


def test_without_resamples_there_are_only_the_exact_intervals():
    table = draw_table([NEAR, FAR], images_of_each=30, seed=5)
    analysis = analyze(table.features, table.labels, bootstrap=0)
    for term, quantities in analysis.items():
        for name, quantity in quantities.items():
            assert (quantity.interval is None) == ((term, name) != ("R_epsilon", "curve")), (term, name)


def test_r_epsilon_has_an_exact_interval_at_every_epsilon():
    features = torch.zeros(20, 3, 1)
    features[:3, 1] = 2
    curve = analyze(features, None, bootstrap=0)["R_epsilon"]["curve"]
    (low, high), (share,) = curve.interval[0], curve.value
    assert low < share == 3 / 20 < high
    assert curve.errs == "low"
