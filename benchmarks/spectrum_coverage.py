"""Bias and coverage of the positive-pair spectrum in many dimensions: simulated, against the exact values.

    python benchmarks/spectrum_coverage.py [--threads 1] [--designs 500x100 1000x128 1000x512 2000x500] [--tables 100]
        [--views 7] [--kinds power steep flat hash] [--large] [--json PATH]

Populations are normal, of ten classes and D independent directions i = 0, 1, … (a design is images × D):

    power   variance 1/(1 + i), λ = 0.95/(1 + i/20)
    steep   variance (1 + i)^−1.5, λ = 0.02 + 0.9 exp(−i/10)
    flat    variance 1, λ = 0.05 + 0.9 exp(−6i/D)
    hash    variance 1, λ = 0.99: a random direction of each image, as of the control encoder

and the classes have the share ½ exp(−i/8) of what is common to the views, with random means of exactly this variance.
The table gives the mean of the estimates over the tables beside the exact value, and how often the intervals hold.

--large (part of `make soak`): up to 10,000 images × 2,000, ten tables each of two populations. The features are drawn
in blocks of images and kept in float32; the process takes up to 4 GB. It ends with 1 if a mean over all directions is
off by more than 2 % and four standard errors, or if so few intervals hold that 95 % is out of the question.
"""

from __future__ import annotations

import statistics
import sys

import measuring
import torch
from scipy.stats import binom
from torch import Tensor

from cssl_cli.host.randomness import stream
from cssl_cli.theory.estimate import Estimate
from cssl_cli.theory.spectrum.eigenfunctions import eigenfunctions, measured_along
from cssl_cli.theory.spectrum.information import information
from cssl_cli.theory.spectrum.positive_pairs import OVER_ALL, RIDGE, positive_pairs
from cssl_cli.theory.spectrum.view_covariances import ViewCovariances
from cssl_cli.theory.table import FeatureTable

CLASSES = 10
KINDS = ("power", "steep", "flat", "hash")
NAMES = ("shared", "of_image", "about_class", "share", "leading_label_energy")
LARGE = {"designs": ["4000x1000", "10000x1000", "10000x2000"], "tables": 10, "kinds": ["power", "flat"]}
BLOCK = 500  # images whose features are drawn together
MOST_BIAS = 0.02
LEAST_CHANCE = 1e-3  # of so few intervals that hold, if 95 % did


def shape_of(kind: str, width: int) -> tuple[Tensor, Tensor]:
    """Variances and λ (D,)."""
    place = torch.arange(width, dtype=torch.float64)
    match kind:
        case "power":
            return 1 / (1 + place), 0.95 / (1 + place / 20)
        case "steep":
            return (1 + place) ** -1.5, 0.02 + 0.9 * torch.exp(-place / 10)
        case "flat":
            return torch.ones_like(place), 0.05 + 0.9 * torch.exp(-6 * place / width)
        case _:
            return torch.ones_like(place), torch.full_like(place, 0.99)


class Population:
    """The scales of its parts (D,), and its class means (K, D)."""

    def __init__(self, kind: str, width: int) -> None:
        variances, values = shape_of(kind, width)
        of_classes = 0.5 * values * torch.exp(-torch.arange(width, dtype=torch.float64) / 8)
        drawn = torch.randn(CLASSES, width, generator=stream(0, "means"), dtype=torch.float64)
        drawn -= drawn.mean(dim=0)
        self.centers = drawn / drawn.square().mean(dim=0).sqrt() * (of_classes * variances).sqrt()
        self.of_image = ((values - of_classes) * variances).sqrt()
        self.of_view = ((1 - values) * variances).sqrt()

    def exact(self) -> dict[str, float]:
        of_classes = self.centers.T @ self.centers / CLASSES
        of_pair = of_classes + torch.diag(self.of_image.square())
        covariances = ViewCovariances(of_pair + torch.diag(self.of_view.square()), of_pair, of_classes, 0, 0)
        found = information(covariances, ridge=RIDGE)
        leading = eigenfunctions(covariances, ridge=RIDGE)[:, : CLASSES - 1]
        along = measured_along(leading, covariances, ridge=RIDGE).of_classes
        assert along is not None
        assert found.about_class is not None
        shared, about_class = found.shared.item(), found.about_class.item()
        return {
            "shared": shared,
            "of_image": found.of_image.item(),
            "about_class": about_class,
            "share": about_class / shared,
            "leading_label_energy": along.sum().item() / (CLASSES - 1),
        }

    def table(self, num_images: int, num_views: int, number: int, *, block: int | None = None) -> FeatureTable:
        """View 0, the clean one, is another view. With `block`, drawn for so many images at a time, in float32."""
        generator = stream(number, "table")
        labels = torch.arange(num_images) % CLASSES
        classes = tuple(str(label) for label in range(CLASSES))
        if block is None:
            return FeatureTable(self._views(labels, num_views, generator), labels, classes)
        views = torch.empty(num_images, 1 + num_views, len(self.of_view))
        for part, of_part in zip(views.split(block), labels.split(block), strict=True):
            part.copy_(self._views(of_part, num_views, generator))
        return FeatureTable(views, labels, classes)

    def _views(self, labels: Tensor, num_views: int, generator: torch.Generator) -> Tensor:
        shape = len(labels), 1 + num_views, len(self.of_view)
        views = torch.randn(shape, generator=generator, dtype=torch.float64) * self.of_view
        images = torch.randn(shape[0], shape[2], generator=generator, dtype=torch.float64) * self.of_image
        return views.add_((self.centers[labels] + images).unsqueeze(1))


def fault(exact: float, estimates: list[Estimate], held: int) -> str | None:
    """What is wrong with the estimates of a number over all directions, of whose intervals so many hold."""
    values = [one.value for one in estimates]
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    off = abs(statistics.fmean(values) - exact)
    if off > MOST_BIAS * abs(exact) + 4 * error:
        return f"the mean is off by {off / abs(exact):.1%}"
    if binom.cdf(held, len(values), 0.95) < LEAST_CHANCE:
        return f"{held} of {len(values)} intervals hold"
    return None


def main() -> None:
    parser = measuring.option_parser(__doc__, threads=1)
    parser.add_argument("--designs", nargs="+", default=["500x100", "1000x128", "1000x512", "2000x500"], metavar="NxD")
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--views", type=int, default=7)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--large", action="store_true", help="many images of many dimensions, and a verdict")
    if parser.parse_known_args()[0].large:
        parser.set_defaults(**LARGE)
    options = parser.parse_args()
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    rows, faults = [], []
    for design in options.designs:
        num_images, width = map(int, design.split("x"))
        for kind in options.kinds:
            population = Population(kind, width)
            exact = population.exact()
            block = BLOCK if options.large else None
            found = [
                positive_pairs(population.table(num_images, options.views, n, block=block))
                for n in range(options.tables)
            ]
            for name in NAMES:
                estimates = [one[name] for one in found if isinstance(one[name], Estimate)]
                if not estimates:
                    continue
                mean = sum(one.value for one in estimates) / len(estimates)
                hold = sum(one.interval[0] <= exact[name] <= one.interval[1] for one in estimates)
                held = hold / len(estimates)
                wrong = fault(exact[name], estimates, hold) if name in OVER_ALL else None
                faults += [f"{design} {kind}, {name}: {wrong}"] if wrong and options.large else []
                rows.append([design, kind, name, f"{exact[name]:.4f}", f"{mean:.4f}", f"{held:.2f}"])
                report.numbers |= {
                    f"mean {name}: {design} {kind}": mean / exact[name],
                    f"coverage {name}: {design} {kind}": held,
                }
                print(*rows[-1], flush=True)
    measuring.print_table(["images × D", "population", "", "exact", "mean", "coverage"], rows)
    print(f"{measuring.peak_memory() / 2**30:.1f} GB of memory at most")
    report.finish(options.json)
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
