"""How often the intervals that `cssl analyze` prints hold what they are said to hold: simulated coverage, term by term.

    python benchmarks/coverage.py [--threads 2] [--tables 400] [--designs 3x10 10x30 100x3 100x10] [--terms NAME ...]
        [--json PATH]

Populations are K classes on the unit sphere, images about the centre of their class and views about each image. From
each, `--tables` tables of so many images are drawn and analysed; the numbers that the intervals are about come from one
large table of the same population. A quantity with many intervals (one a class, a point of a curve, a pair of classes)
counts each. The Monte-Carlo error of a coverage is 1.1 points where one interval of 400 tables is counted; it says
nothing of populations unlike these two, whose images are tight about their centres or wide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import measuring
import torch
from torch import Tensor

from cssl_cli.geometry import unit_norm
from cssl_cli.randomness import stream
from cssl_cli.theory import LossSettings, analyze_table
from cssl_cli.theory.estimate import Absent, Estimate

WIDTH, VIEWS = 16, 5
LOSS = LossSettings(temperature=0.5, batch_size=64)
EPSILONS = (0.4, 0.6, 0.8, 1.0, 1.2)
TIGHT, WIDE = "tight", "wide"
SPREADS = {TIGHT: (0.35, 0.25), WIDE: (1.2, 0.6)}  # norms of the noise of an image and of a view, for centres of norm 1
LARGE = 40_000  # images of the table that stands for the population
TERMS = ("alignment", "R_epsilon", "class_centers", "spread", "info_nce", "cross_correlation", "uniformity")


def main() -> None:
    parser = measuring.option_parser(__doc__)
    parser.add_argument("--tables", type=int, default=400)
    parser.add_argument("--large", type=int, default=LARGE, help="images that stand for the population")
    parser.add_argument("--designs", nargs="+", default=["3x10", "10x30", "100x3", "100x10"], metavar="KxN")
    parser.add_argument("--terms", nargs="+", default=list(TERMS), choices=TERMS)
    options = parser.parse_args()
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    columns = [f"{design} {kind}" for design in options.designs for kind in SPREADS]
    for design in options.designs:
        classes, images = map(int, design.split("x"))
        for kind in SPREADS:
            found = simulate(classes, images, kind, options.tables, options.terms, options.large)
            for name, coverage in found.items():
                report.numbers[f"{'.'.join(name)}: {design} {kind}"] = coverage.share
                rows.setdefault(name, {})[f"{design} {kind}"] = f"{coverage.share:.3f}"
    for name, cells in sorted(rows.items()):
        print(f"{'.'.join(name):45}" + "".join(f"{cells.get(column, '–'):>14}" for column in columns))
    print(" " * 45 + "".join(f"{column:>14}" for column in columns))
    report.finish(options.json)


@dataclass(frozen=True)
class Population:
    """K classes on the unit sphere of `WIDTH` dimensions; `seed` fixes their centres."""

    num_classes: int
    kind: str
    seed: int = 0

    @cached_property
    def centers(self) -> Tensor:
        return unit_norm(torch.randn(self.num_classes, WIDTH, generator=stream(self.seed, "centers")).double())

    def draw(self, images_of_each: int, generator: torch.Generator, num_views: int = VIEWS) -> tuple[Tensor, Tensor]:
        """Unit-norm features (N, V, D) and labels (N,)."""
        of_image, of_view = (size / WIDTH**0.5 for size in SPREADS[self.kind])
        labels = torch.arange(self.num_classes).repeat_interleave(images_of_each)
        image = torch.randn(len(labels), 1, WIDTH, generator=generator, dtype=torch.float64)
        view = torch.randn(len(labels), num_views, WIDTH, generator=generator, dtype=torch.float64)
        # Unequal noise, as of images that are harder than others.
        scale = 0.5 + torch.rand(len(labels), 1, 1, generator=generator, dtype=torch.float64)
        return unit_norm(self.centers[labels].unsqueeze(1) + of_image * image + of_view * scale * view), labels

    def analyze(self, features: Tensor, labels: Tensor, terms: Any, *, bootstrap: int, seed: int) -> dict[str, Any]:
        return analyze_table(
            features,
            labels,
            class_names=[f"class {label}" for label in range(self.num_classes)],
            epsilons=EPSILONS,
            bootstrap=bootstrap,
            loss=LOSS,
            generator=stream(seed, "bootstrap"),
            only=terms,
        )


@dataclass
class Coverage:
    """How many intervals were counted, and how many of them held what they are about."""

    count: int = 0
    hits: int = 0
    low: int = 0  # that lay below it

    @property
    def share(self) -> float:
        return self.hits / self.count

    def add(self, interval: Any, truth: float) -> None:
        self.count += 1
        self.hits += interval[0] <= truth <= interval[1]
        self.low += interval[1] < truth


def simulate(
    classes: int, images: int, kind: str, tables: int, terms: Any, large: int = LARGE
) -> dict[tuple[str, str], Coverage]:
    """Coverage of every interval of the terms, by term and quantity."""
    population = Population(classes, kind)
    truth = truths(population, terms, large)
    found: dict[tuple[str, str], Coverage] = {}
    for number in range(tables):
        features, labels = population.draw(images, stream(number, "table"))
        measured = population.analyze(features, labels, terms, bootstrap=200, seed=number)
        for name, true, interval in intervals(measured, truth):
            found.setdefault(name, Coverage()).add(interval, true)
    return found


def truths(population: Population, terms: Any, large: int) -> dict[str, Any]:
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
                sum(draw["info_nce"][name].value for draw in draws) / len(draws), "", "unbiased", quantity.sample
            )
            for name, quantity in draws[0]["info_nce"].items()
            if isinstance(quantity, Estimate)
        }
    return found


def intervals(measured: Mapping[str, Any], truth: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], float, Any]]:
    """Every interval, with what it is about."""
    for term, quantities in measured.items():
        for name, quantity in quantities.items():
            if isinstance(quantity, Absent) or quantity.interval is None:
                continue
            for path, interval in leaves(quantity.interval):
                value = truth[term][name].value
                for key in path:
                    value = value[key]
                yield (term, name), value, interval


def leaves(interval: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The intervals in a number, list or mapping of them, each with the way to it."""
    if isinstance(interval, dict):
        for key, entry in interval.items():
            yield from leaves(entry, (*path, key))
    elif isinstance(interval, list):
        for key, entry in enumerate(interval):
            yield from leaves(entry, (*path, key))
    elif interval is not None:
        yield path, interval


if __name__ == "__main__":
    main()
