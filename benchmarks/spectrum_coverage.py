"""Bias and coverage of the positive-pair spectrum in many dimensions: simulated, against the exact values.

    python benchmarks/spectrum_coverage.py [--threads 1] [--designs 500x100 1000x128 1000x512 2000x500] [--tables 100]
        [--views 7] [--kinds power steep flat hash] [--json PATH]

Populations are normal, of ten classes and D independent directions i = 0, 1, … (a design is images × D):

    power   variance 1/(1 + i), λ = 0.95/(1 + i/20)
    steep   variance (1 + i)^−1.5, λ = 0.02 + 0.9 exp(−i/10)
    flat    variance 1, λ = 0.05 + 0.9 exp(−6i/D)
    hash    variance 1, λ = 0.99: a random direction of each image, as of the control encoder

and the classes have the share ½ exp(−i/8) of what is common to the views, with random means of exactly this variance.
The table gives the mean of the estimates over the tables beside the exact value, and how often the intervals hold.
"""

from __future__ import annotations

import measuring
import torch
from torch import Tensor

from cssl_cli.host.randomness import stream
from cssl_cli.theory.estimate import Estimate
from cssl_cli.theory.spectrum.eigenfunctions import eigenfunctions, measured_along
from cssl_cli.theory.spectrum.information import information
from cssl_cli.theory.spectrum.positive_pairs import RIDGE, positive_pairs
from cssl_cli.theory.spectrum.view_covariances import ViewCovariances
from cssl_cli.theory.table import FeatureTable

CLASSES = 10
KINDS = ("power", "steep", "flat", "hash")
NAMES = ("shared", "of_image", "about_class", "share", "leading_label_energy")


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

    def table(self, num_images: int, num_views: int, number: int) -> FeatureTable:
        """View 0, the clean one, is another view."""
        generator = stream(number, "table")
        labels = torch.arange(num_images) % CLASSES
        width = len(self.of_view)
        views = torch.randn(num_images, 1 + num_views, width, generator=generator, dtype=torch.float64) * self.of_view
        images = torch.randn(num_images, width, generator=generator, dtype=torch.float64) * self.of_image
        views += (self.centers[labels] + images).unsqueeze(1)
        return FeatureTable(views, labels, tuple(str(label) for label in range(CLASSES)))


def main() -> None:
    parser = measuring.option_parser(__doc__, threads=1)
    parser.add_argument("--designs", nargs="+", default=["500x100", "1000x128", "1000x512", "2000x500"], metavar="NxD")
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--views", type=int, default=7)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    options = parser.parse_args()
    report = measuring.Report(measuring.machine(measuring.prepare(options)))
    rows = []
    for design in options.designs:
        num_images, width = map(int, design.split("x"))
        for kind in options.kinds:
            population = Population(kind, width)
            exact = population.exact()
            found = [positive_pairs(population.table(num_images, options.views, n)) for n in range(options.tables)]
            for name in NAMES:
                estimates = [one[name] for one in found if isinstance(one[name], Estimate)]
                if not estimates:
                    continue
                mean = sum(one.value for one in estimates) / len(estimates)
                held = sum(one.interval[0] <= exact[name] <= one.interval[1] for one in estimates) / len(estimates)
                rows.append([design, kind, name, f"{exact[name]:.4f}", f"{mean:.4f}", f"{held:.2f}"])
                report.numbers |= {
                    f"mean {name}: {design} {kind}": mean / exact[name],
                    f"coverage {name}: {design} {kind}": held,
                }
                print(*rows[-1], flush=True)
    measuring.print_table(["images × D", "population", "", "exact", "mean", "coverage"], rows)
    report.finish(options.json)


if __name__ == "__main__":
    main()
