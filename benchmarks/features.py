"""Feature extraction, k-NN and the linear classifier: seconds, and ratios to a plain implementation.

    python benchmarks/features.py [--threads 2] [--device cpu] [--width 16] [--images 2048] [--train 50000]
        [--test 10000] [--features 512] [--neighbours 200] [--classes 10] [--repetitions 3] [--json PATH]

Extraction: a ResNet-18 of the given width on random images, against a loop over batches of 512 images under no_grad.
k-NN: against the similarity matrix and its largest entries, block by block. The linear classifier: one fit to
convergence, and the whole probe that chooses its penalty; compared with memory speed, as the number of passes over the
features that the machine's copy rate would allow in the same time. Features are overlapping clusters.
"""

from __future__ import annotations

import argparse
import copy
import statistics

import measuring
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cssl_cli.augment import normalize
from cssl_cli.features.probe.knn import knn_predict
from cssl_cli.features.probe.linear import FINAL_TOLERANCE, Standardization, fit_linear
from cssl_cli.features.probe.softmax_regression import SoftmaxRegression
from cssl_cli.host.randomness import stream
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.recipe import load_recipe
from cssl_cli.runs.device import choose_device
from cssl_cli.runs.setup import make_extractor

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
PLAIN_BATCH = 512
DISTANCE = 0.1  # between a class's centre and the origin, in each direction, in standard deviations of the noise
TEMPERATURE = 0.1


def main() -> None:
    parser = measuring.option_parser(__doc__, cuda=True)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--train", type=int, default=50_000, help="training features of k-NN and linear classifier")
    parser.add_argument("--test", type=int, default=10_000, help="test features of k-NN")
    parser.add_argument("--features", type=int, default=512, help="their number of dimensions")
    parser.add_argument("--neighbours", type=int, default=200)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    device = choose_device(measuring.prepare(options).type)
    report = measuring.Report(measuring.machine(device))
    extraction(report, options, device)
    train, labels = clusters(options, options.train, "train", device)
    nearest_neighbours(report, options, train, labels, device)
    linear(report, options, train, labels, device)
    report.finish(options.json)


# -------------------------------------------------------------------------------------------------------- extraction
def extraction(report: measuring.Report, options: argparse.Namespace, device: torch.device) -> None:
    encoder = materialize(build_encoder({"name": "resnet18", "width": options.width}), stream(0, "init"))
    extractor = make_extractor(copy.deepcopy(encoder), mean=MEAN, std=STD, image_size=32, device=device)
    generator = stream(0, "benchmark")
    images = torch.randint(0, 256, (options.images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    encoder = encoder.to(device)
    seconds = measuring.alternate(
        {"plain loop": lambda: plain_features(encoder, images, device), "cssl": lambda: extractor.clean(images)},
        options.repetitions,
        device=device,
    )
    case = f"resnet18 width {options.width}"
    print(f"feature extraction, {case}, {options.images:,} images of 32×32")
    rows = []
    for name, values in seconds.items():
        speed = options.images / statistics.median(values)
        report.numbers[f"extraction, {name}, images/s: {case}"] = speed
        rows.append([name, f"{speed:,.0f}"])
    measuring.print_table(["", "images/s"], rows)
    report.ratios[f"extraction over a plain loop: {case}"] = measuring.ratio(seconds["plain loop"], seconds["cssl"])


@torch.no_grad()
def plain_features(encoder: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    encoder.eval()
    batches = images.split(PLAIN_BATCH)
    return torch.cat([encoder(normalize(batch.to(device).float() / 255, MEAN, STD)).cpu() for batch in batches])


# -------------------------------------------------------------------------------------------------------------- k-NN
def nearest_neighbours(
    report: measuring.Report, options: argparse.Namespace, train: Tensor, labels: Tensor, device: torch.device
) -> None:
    test, _ = clusters(options, options.test, "test", device)
    settings = {"k": options.neighbours, "temperature": TEMPERATURE, "num_classes": options.classes}
    seconds = measuring.alternate(
        {
            "plain formula": lambda: plain_knn(train, labels, test, **settings),
            "cssl": lambda: knn_predict(train, labels, test, **settings),
        },
        options.repetitions,
        device=device,
    )
    case = f"{options.train:,} × {options.test:,}, {options.features} dimensions, k = {options.neighbours}"
    show_seconds(report, "k-NN", case, seconds)
    report.ratios[f"k-NN over the plain formula: {case}"] = measuring.ratio(seconds["plain formula"], seconds["cssl"])


def plain_knn(train: Tensor, labels: Tensor, test: Tensor, *, k: int, temperature: float, num_classes: int) -> Tensor:
    train, test = F.normalize(train), F.normalize(test)
    predictions = []
    for block in test.split(PLAIN_BATCH):
        nearest, neighbours = (block @ train.T).topk(k, dim=1)
        votes = block.new_zeros(len(block), num_classes)
        votes.scatter_add_(1, labels[neighbours], (nearest / temperature).exp())
        predictions.append(votes.argmax(dim=1))
    return torch.cat(predictions)


# ------------------------------------------------------------------------------------------------------------ linear
def linear(
    report: measuring.Report, options: argparse.Namespace, train: Tensor, labels: Tensor, device: torch.device
) -> None:
    settings = load_recipe("simclr-cifar10").settings("probe")
    penalty = sorted(settings["penalties"])[len(settings["penalties"]) // 2]

    def one_fit() -> None:
        problem = SoftmaxRegression(Standardization.of(train).apply(train), labels, options.classes)
        assert problem.solve(penalty, start=problem.zeros(), tolerance=FINAL_TOLERANCE).converged

    def whole_probe() -> None:
        fit_linear(
            train,
            labels,
            penalties=settings["penalties"],
            validation_fraction=settings["validation_fraction"],
            generator=stream(0, "probe split"),
        )

    seconds = measuring.alternate(
        {"one fit": one_fit, "whole probe": whole_probe}, options.repetitions, warm_up=0, device=device
    )
    case = f"{options.train:,} × {options.features}, {options.classes} classes"
    show_seconds(report, "linear classifier", case, seconds)
    one_pass = train.nbytes / report.machine["copy"]
    for name, values in seconds.items():
        report.ratios[f"linear, {name}, passes at the copy rate: {case}"] = measuring.ratio(
            values, [one_pass] * len(values), better="lower"
        )


# ------------------------------------------------------------------------------------------------------------ shared
def clusters(options: argparse.Namespace, number: int, what: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Features (N, D) about a centre for each class, and labels (N,)."""
    centers = torch.randn(options.classes, options.features, generator=stream(0, "centers"))
    labels = torch.arange(number) % options.classes
    noise = torch.randn(number, options.features, generator=stream(0, what))
    return (DISTANCE * centers[labels] + noise).to(device), labels.to(device)


def show_seconds(report: measuring.Report, what: str, case: str, seconds: dict[str, list[float]]) -> None:
    print(f"\n{what}, {case}")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    measuring.print_table(["", "seconds"], [[name, f"{median:.2f}"] for name, median in medians.items()])
    report.numbers |= {f"{what}, {name}, seconds: {case}": median for name, median in medians.items()}


if __name__ == "__main__":
    main()
