"""How often the intervals of `cssl analyze` contain the truth: simulated coverage, term by term.

    python benchmarks/interval_coverage.py [--threads 2] [--tables 400] [--designs 3x10 10x30 100x3 100x10]
        [--terms NAME ...] [--large 40000] [--json PATH]

Populations are K classes on the unit sphere, images around the centre of their class, views around each image. From
each, `--tables` tables are drawn and analysed; the true values come from one large table of the same population. Some
intervals have another truth: NT-Xent's is the mean over all batches of the table (here, many); that of errors of
held-out centres, new images under these centres; that of few labels, another draw of labelled images; that of
concentration, of the intrinsic dimension and of the trade-off of views, the mean over tables of this size. A quantity
with many intervals (one a class, a point of a curve) counts each. The Monte-Carlo error of a coverage is 1.1 points for
one interval a table in 400 tables. The result is limited to these two populations, with images tight around their
centres or wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import measuring
import torch
from torch import Tensor

from cssl_cli.features.geometry import unit_norm
from cssl_cli.features.intervals import bootstrap_weights
from cssl_cli.host.randomness import stream
from cssl_cli.theory.analysis import FeatureTable, LossSettings, analyze_table
from cssl_cli.theory.certificates.augmented_error import augmented_error, split_in_halves
from cssl_cli.theory.certificates.few_labels import few_labels
from cssl_cli.theory.class_geometry import class_geometry, misclassified, within_class_distances
from cssl_cli.theory.companions.clid import clid
from cssl_cli.theory.companions.trade_off import trade_off
from cssl_cli.theory.concentration.sigma import concentration
from cssl_cli.theory.estimate import Absent, Estimate
from cssl_cli.theory.spectrum.positive_pairs import OVER_ALL, positive_pairs

WIDTH, VIEWS = 16, 5
LOSS = LossSettings(temperature=0.5, batch_size=64)
EPSILONS = (0.4, 0.6, 0.8, 1.0, 1.2)
SPREADS = {"tight": (0.35, 0.25), "wide": (1.2, 0.6)}  # norms of the noise of images and of views, centres having 1
OF_POPULATION = (
    "alignment",
    "R_epsilon",
    "R_epsilon_bounds",
    "class_centers",
    "spread",
    "mean_feature",
    "info_nce",
    "cross_correlation",
    "uniformity",
)
BATCH_TABLES = 8  # tables whose batches are drawn repeatedly
NEW_IMAGES = 2000  # that represent all images under given centres
SHOTS = (1, 5)
DELTAS = (0.6, 0.8, 1.0)
ROUNDING = 1e-12  # of a mean over tables if a number is always the same


@dataclass(frozen=True)
class Population:
    """K classes on the unit sphere of `WIDTH` dimensions; `seed` fixes their centres."""

    num_classes: int
    kind: str
    seed: int = 0

    @cached_property
    def centers(self) -> Tensor:
        return unit_norm(torch.randn(self.num_classes, WIDTH, generator=stream(self.seed, "centers")).double())

    def draw(self, images_of_each: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Unit-norm features (N, V, D) and labels (N,)."""
        of_image, of_view = (size / WIDTH**0.5 for size in SPREADS[self.kind])
        labels = torch.arange(self.num_classes).repeat_interleave(images_of_each)
        image = torch.randn(len(labels), 1, WIDTH, generator=generator, dtype=torch.float64)
        view = torch.randn(len(labels), VIEWS, WIDTH, generator=generator, dtype=torch.float64)
        # Some images are harder than others: their views are wider.
        scale = 0.5 + torch.rand(len(labels), 1, 1, generator=generator, dtype=torch.float64)
        return unit_norm(self.centers[labels].unsqueeze(1) + of_image * image + of_view * scale * view), labels

    def new_images(self) -> tuple[Tensor, Tensor]:
        return self.draw(max(2, NEW_IMAGES // self.num_classes), stream(1, "new"))

    @property
    def class_names(self) -> list[str]:
        return [f"class {label}" for label in range(self.num_classes)]

    def table(self, images_of_each: int, number: int) -> FeatureTable:
        return FeatureTable.build(*self.draw(images_of_each, stream(number, "table")), self.class_names)

    def analyze(
        self, features: Tensor, labels: Tensor, terms: Sequence[str], *, bootstrap: int, seed: int
    ) -> dict[str, Any]:
        return analyze_table(
            features,
            labels,
            class_names=self.class_names,
            epsilons=EPSILONS,
            bootstrap=bootstrap,
            loss=LOSS,
            generator=stream(seed, "bootstrap"),
            only=terms,
        )


@dataclass
class Coverage:
    """How many intervals were counted, and how many contained the truth."""

    count: int = 0
    hits: int = 0

    @property
    def share(self) -> float:
        return self.hits / self.count

    def add(self, interval: Any, truth: float) -> None:
        self.count += 1
        self.hits += interval[0] - ROUNDING <= truth <= interval[1] + ROUNDING


class Coverages(dict[str, Coverage]):
    """By the name of the quantity, as TERM.QUANTITY."""

    def add(self, name: str, quantity: Any, truth: Any) -> None:
        """Counts every interval of a quantity against `truth`, which has the shape of the quantity's value."""
        if isinstance(quantity, Estimate) and quantity.interval is not None:
            for path, interval in leaves(quantity.interval):
                value = truth
                for key in path:
                    value = value[key]
                self.setdefault(name, Coverage()).add(interval, value)


def leaves(interval: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The intervals in a number, list or mapping, each with its path."""
    if isinstance(interval, (dict, list)):
        for key, entry in interval.items() if isinstance(interval, dict) else enumerate(interval):
            yield from leaves(entry, (*path, key))
    elif interval is not None:
        yield path, interval


# --------------------------------------------------------------------------------------------------- the population
def of_population(population: Population, images: int, tables: int, terms: Sequence[str], large: int) -> Coverages:
    """Intervals about the population, against a large table of it."""
    truth = truths(population, terms, large)
    found = Coverages()
    for number in range(tables):
        features, labels = population.draw(images, stream(number, "table"))
        measured = population.analyze(features, labels, terms, bootstrap=200, seed=number)
        for term, quantities in measured.items():
            for name, quantity in quantities.items():
                if not isinstance(quantity, Absent) and quantity.interval is not None:
                    found.add(f"{term}.{name}", quantity, truth[term][name].value)
    return found


def truths(population: Population, terms: Sequence[str], large: int) -> dict[str, Any]:
    """The terms of a large table; of InfoNCE, which takes few images, the mean over many draws of them."""
    features, labels = population.draw(max(2, large // population.num_classes), stream(1, "population"))
    found = population.analyze(features, labels, [term for term in terms if term != "info_nce"], bootstrap=0, seed=1)
    if "info_nce" in terms:
        draws = [
            population.analyze(*population.draw(8, stream(number, "many")), ["info_nce"], bootstrap=0, seed=number)
            for number in range(300)
        ]
        found["info_nce"] = {
            name: Estimate(
                sum(draw["info_nce"][name].value for draw in draws) / len(draws), "mean", "unbiased", quantity.sample
            )
            for name, quantity in draws[0]["info_nce"].items()
            if isinstance(quantity, Estimate)
        }
    return found


# --------------------------------------------------------------------------------------- what is about something else
def of_batches(population: Population, images: int, tables: int) -> Coverages:
    """NT-Xent: many runs over the same tables, the mean of which is the truth."""
    found = Coverages()
    for number in range(BATCH_TABLES):
        features, labels = population.draw(images, stream(number, "table"))
        runs = [
            population.analyze(features, labels, ["nt_xent"], bootstrap=0, seed=seed)["nt_xent"]
            for seed in range(max(2, tables // BATCH_TABLES))
        ]
        for name in ("collapse_gap", "divergence_part", "loss"):
            truth = sum(run[name].value for run in runs) / len(runs)
            for run in runs:
                found.add(f"nt_xent.{name}", run[name], truth)
    return found


def of_held_out_centers(population: Population, images: int, tables: int) -> Coverages:
    """Errors of centres from one half of a table on its other half, against new images and their views."""
    found = Coverages()
    new, labels = population.new_images()
    for number in range(tables):
        geometry = class_geometry(population.table(images, number))
        assert not isinstance(geometry, Absent)
        measured = augmented_error(geometry, generator=stream(number, "halves"))
        centers, _ = split_in_halves(geometry, stream(number, "halves"))
        wrong = torch.stack([misclassified(views, labels, centers) for views in new.unbind(dim=1)], dim=1).double()
        found.add("augmented_error.clean", measured["clean"], wrong[:, 0].mean().item())
        found.add("augmented_error.views", measured["views"], wrong[:, 1:].mean().item())
    return found


def of_few_labels(population: Population, images: int, tables: int) -> Coverages:
    """The error of centres from newly drawn labelled images on new images."""
    found = Coverages()
    new, labels = population.new_images()
    for number in range(tables):
        geometry = class_geometry(population.table(images, number))
        measured = few_labels(geometry, shots=SHOTS, generator=stream(number, "draws"))
        for shots in SHOTS:
            labelled, _ = population.draw(shots, stream(number, f"labelled {shots}"))
            centers = labelled[:, 1:].mean(dim=1).unflatten(0, (-1, shots)).mean(dim=1)
            truth = misclassified(new[:, 0], labels, centers).double().mean().item()
            found.add(f"few_labels.error_{shots}", measured[f"error_{shots}"], truth)
    return found


def of_concentration(population: Population, images: int, tables: int) -> Coverages:
    """σ and the nearest image: the intervals of many tables, and the mean over them."""
    runs = []
    for number in range(tables):
        table = population.table(images, number)
        runs.append(
            concentration(
                lambda rows, features=table.features: features[rows],
                table.labels,
                table.class_names,
                num_views=VIEWS,
                deltas=DELTAS,
                between_images=1000,
                generator=stream(number, "subset"),
            )
        )
    found = Coverages()
    for name in ("mean_sigma_low", "nearest_same_class"):
        truth = torch.tensor([run[name].value for run in runs], dtype=torch.float64).mean(dim=0).tolist()
        for run in runs:
            found.add(f"concentration.{name}", run[name], truth)
    return found


def of_spectrum(population: Population, images: int, tables: int) -> Coverages:
    """Over all directions, against many images; the label energy, whose interval is for the directions found, against
    the mean over tables."""
    runs = [positive_pairs(population.table(images, number)) for number in range(tables)]
    many = positive_pairs(population.table(max(4, 10 * NEW_IMAGES // population.num_classes), tables))
    energies = [run["leading_label_energy"] for run in runs if isinstance(run["leading_label_energy"], Estimate)]
    found = Coverages()
    for energy in energies:
        mean = sum(one.value for one in energies) / len(energies)
        found.add("positive_pairs.leading_label_energy", energy, mean)
    for run in runs:
        for name in OVER_ALL:
            if isinstance(run[name], Estimate):
                found.add(f"positive_pairs.{name}", run[name], many[name].value)
    return found


def of_dimension(population: Population, images: int, tables: int) -> Coverages:
    """The intrinsic dimension, which depends on the number of images: against the mean over tables."""
    runs = []
    for number in range(tables):
        table = population.table(images, number)
        weights = bootstrap_weights(table.strata, replicates=200, generator=stream(number, "bootstrap"))
        measured = clid(table, max_images=1000, weights=weights, generator=stream(number, "clusters"))
        runs.append(measured["intrinsic_dimension"])
    known = [run for run in runs if isinstance(run, Estimate)]
    found = Coverages()
    for run in known:
        found.add("clid.intrinsic_dimension", run, sum(one.value for one in known) / len(known))
    return found


def of_trade_off(population: Population, images: int, tables: int) -> Coverages:
    """Least and largest distances, which depend on the numbers of images and views: against the mean over tables."""
    drawn = [population.table(images, number) for number in range(tables)]
    runs = [trade_off(table, within_class_distances(table)) for table in drawn]
    found = Coverages()
    for name in runs[0]:
        for run in runs:
            found.add(f"trade_off.{name}", run[name], sum(one[name].value for one in runs) / len(runs))
    return found


OTHERS: Mapping[str, Callable[[Population, int, int], Coverages]] = {
    "nt_xent": of_batches,
    "held_out": of_held_out_centers,
    "few_labels": of_few_labels,
    "concentration": of_concentration,
    "clid": of_dimension,
    "trade_off": of_trade_off,
    "positive_pairs": of_spectrum,
}


# --------------------------------------------------------------------------------------------------------- the script
def main() -> None:
    parser = measuring.option_parser(__doc__)
    parser.add_argument("--tables", type=int, default=400)
    parser.add_argument("--large", type=int, default=40_000, help="images that stand for the population")
    parser.add_argument("--designs", nargs="+", default=["3x10", "10x30", "100x3", "100x10"], metavar="KxN")
    terms = (*OF_POPULATION, *OTHERS)
    parser.add_argument("--terms", nargs="+", default=list(terms), choices=terms, metavar="NAME")
    options = parser.parse_args()
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    rows: dict[str, dict[str, float]] = {}
    for design in options.designs:
        classes, images = map(int, design.split("x"))
        for kind in SPREADS:
            found = simulate(Population(classes, kind), images, options.tables, options.terms, options.large)
            for name, coverage in found.items():
                rows.setdefault(name, {})[f"{design} {kind}"] = coverage.share
                report.numbers[f"{name}: {design} {kind}"] = coverage.share
    columns = [f"{design} {kind}" for design in options.designs for kind in SPREADS]
    measuring.print_table(
        ["coverage", *columns],
        [[name, *(f"{cells[c]:.3f}" if c in cells else "–" for c in columns)] for name, cells in rows.items()],
    )
    report.finish(options.json)


def simulate(population: Population, images: int, tables: int, terms: Sequence[str], large: int) -> Coverages:
    """Coverage of every interval of the terms."""
    found = Coverages()
    direct = [term for term in terms if term in OF_POPULATION]
    if direct:
        found |= of_population(population, images, tables, direct, large)
    for term, simulation in OTHERS.items():
        if term in terms:
            found |= simulation(population, images, tables)
    return found


if __name__ == "__main__":
    main()
