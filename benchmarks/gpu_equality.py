"""The stages of gpu_check.py that compare the device's numbers with the CPU's: every method, augmentation and loss."""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any
from unittest import mock

import torch
from features import clusters
from gpu_findings import Findings, Setting
from gpu_speed import begin, recipe_of, script
from torch import Tensor, nn

from cssl_cli.augment import OPERATIONS, build_augmentation
from cssl_cli.data import Dataset
from cssl_cli.errors import InputError
from cssl_cli.features.probe.knn import knn_predict
from cssl_cli.features.probe.linear import fit_linear
from cssl_cli.host.progress import Silent
from cssl_cli.host.randomness import stream
from cssl_cli.methods import method_names
from cssl_cli.nn.encoder import build_encoder, materialize
from cssl_cli.nn.log_sum_exp import log_sum_exp_of_inner_products, log_sum_exp_of_t_kernel, log_sum_exp_over_keys
from cssl_cli.nn.off_diagonal import off_diagonal_squares
from cssl_cli.recipe import Recipe
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.setup import initial_method, make_extractor
from cssl_cli.runs.trainer import make_trainer
from cssl_cli.train import loop as train

CPU = torch.device("cpu")
STEPS = 3
RECORDED_STEPS = 8  # of which a graph replays five
# Limits of the largest difference of a term over three steps, and relative to how far the weights moved.
FLOAT32, BFLOAT16, GRAPH = (
    {"terms": terms, "weights": weights} for terms, weights in ((1e-3, 0.05), (0.2, 0.6), (5e-3, 0.1))
)
EVERY_OPERATION: dict[str, dict[str, Any]] = {
    "crop": {"scale": (0.2, 1.0), "ratio": (0.75, 4 / 3)},
    "flip": {"p": 0.5},
    "jitter": {"p": 0.8, "strength": 1.0, "brightness": None, "contrast": None, "saturation": None, "hue": None},
    "gray": {"p": 0.2},
    "blur": {"p": 0.5, "sigma": (0.1, 2.0), "kernel_size": None},
    "solarize": {"p": 0.2, "threshold": 0.5},
    "cutout": {"p": 0.5, "scale": (0.1, 0.3)},
    "fade": {"p": 0.5, "contrast": (0.0, 0.1)},
}


# ------------------------------------------------------------------------------------------------------- (b) methods
def methods(findings: Findings, setting: Setting) -> None:
    """A few steps of the small encoder; after the first, nothing may wait for the device."""
    device = begin(setting)
    dataset = prepare_data(small_recipe("simclr", setting, "float32"), Silent())
    for name in method_names():
        recipe = small_recipe(name, setting, "float32")
        start = weights_of(initial_method(recipe))
        expected = first_steps(recipe, dataset, CPU)
        for precision, limits in (("float32", FLOAT32), ("bfloat16", BFLOAT16)):
            found = first_steps(small_recipe(name, setting, precision), dataset, device)
            compare(findings, f"{name}, {precision}", found, expected, start, limits)
    try:
        for name in method_names():
            as_a_graph(findings, setting, name, dataset, device)
    except InputError as error:
        findings.note(f"CUDA graphs: not tried ({error.what})")


def small_recipe(name: str, setting: Setting, precision: str, *overrides: str) -> Recipe:
    images, batch, width = (200, 32, 4) if setting.small else (800, 64, 8)
    return recipe_of(
        f"{name}-shapes",
        [
            f"data={{name: shapes, num_train: {images}, num_test: 20}}",
            f"encoder={{name: small, width: {width}}}",
            "optim={name: sgd, lr: 0.02}",
            f"train={{batch_size: {batch}, precision: {precision}, compile: false}}",
            *overrides,
        ],
    )


Steps = tuple[dict[str, Tensor], Tensor]  # each term at each step, and the weights after the last


def first_steps(recipe: Recipe, dataset: Dataset, device: torch.device, num_steps: int = STEPS) -> Steps:
    with mock.patch.object(train, "CHECK_SECONDS", math.inf):
        trainer = make_trainer(recipe, dataset, device, notice=print)
        steps = trainer.run()
        next(steps)
        with strict(device) if num_steps == STEPS else contextlib.nullcontext():
            for _ in islice(steps, num_steps - 1):
                pass
    terms = {name: values[:num_steps].double().cpu() for name, values in trainer.epoch_terms.items()}
    return terms, weights_of(trainer.method)


def weights_of(network: nn.Module) -> Tensor:
    """All weights in one vector, on the CPU."""
    return torch.cat([weight.detach().cpu().flatten() for weight in network.parameters()])


@contextlib.contextmanager
def strict(device: torch.device) -> Iterator[None]:
    """Within it, waiting for the device is an error."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def compare(
    findings: Findings, case: str, found: Steps, expected: Steps, start: Tensor, limits: dict[str, float]
) -> None:
    (terms, weights), (expected_terms, expected_weights) = found, expected
    scale = expected_terms["loss"].abs().clamp(min=0.1)  # parts of a loss may be close to 0
    worst = max(
        ((terms[name] - expected_terms[name]).abs() / torch.maximum(expected_terms[name].abs(), scale)).max().item()
        for name in expected_terms
    )
    findings.at_most(f"{case}: terms of the loss", worst, limits["terms"])
    moved = (expected_weights - start).norm()
    findings.at_most(f"{case}: weights", ((weights - expected_weights).norm() / moved).item(), limits["weights"])


def as_a_graph(findings: Findings, setting: Setting, name: str, dataset: Dataset, device: torch.device) -> None:
    """More steps, most of them replayed from a CUDA graph, against the same steps launched kernel by kernel."""
    recorded = small_recipe(name, setting, "float32", "train.compile=graph")
    found = first_steps(recorded, dataset, device, RECORDED_STEPS)
    recipe = small_recipe(name, setting, "float32")
    start = weights_of(initial_method(recipe))
    expected = first_steps(recipe, dataset, device, RECORDED_STEPS)
    compare(findings, f"{name}, CUDA graph", found, expected, start, GRAPH)


# --------------------------------------------------------------------------------------------------------- (c) parts
def parts(findings: Findings, setting: Setting) -> None:
    device = begin(setting)
    augmentations(findings, setting, device)
    losses(findings, setting, device)
    classifiers(findings, setting, device)
    features(findings, setting, device)
    sizes: tuple[object, ...] = ("--width", 64, "--images", 16_384)
    if setting.small:
        sizes = ("--width", 1, "--images", 8, "--train", 400, "--test", 20, "--features", 8, "--neighbours", 5)
    script(findings, setting, "features", *sizes, "--repetitions", 1 if setting.small else 3)


def augmentations(findings: Findings, setting: Setting, device: torch.device) -> None:
    number = 16 if setting.small else 512
    generator = stream(0, "benchmark")
    images = torch.randint(0, 256, (number, 3, 32, 32), dtype=torch.uint8, generator=generator)
    for names in [[name] for name in OPERATIONS] + [list(OPERATIONS)]:
        augmentation = build_augmentation({name: EVERY_OPERATION[name] for name in names}, image_size=32)
        theta = augmentation.draw(number, generator)
        found = augmentation.apply(images.to(device), theta.to(device)).cpu()
        off = (found - augmentation.apply(images, theta)).abs() > 1e-3
        # A value next to a threshold may end up on its other side.
        findings.at_most(f"share of values that {'-'.join(names)} makes otherwise", off.double().mean().item(), 1e-3)


def losses(findings: Findings, setting: Setting, device: torch.device) -> None:
    """Losses in float32, in several blocks and in the device's, against float64."""
    rows, columns = (60, 24) if setting.small else (3000, 128)
    generator = stream(0, "benchmark")
    z, keys = (torch.randn((n, columns), generator=generator, dtype=torch.float64) for n in (rows, 2 * rows))
    z = z / columns**0.5
    for block in (rows // 3, None):
        functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "inner products": lambda z, _, b=block: log_sum_exp_of_inner_products(z, temperature=0.5, tile=b).mean(),
            "t kernel": lambda z, _, b=block: log_sum_exp_of_t_kernel(z, t_df=3.0, tau=0.1, tile=b).mean(),
            "keys": lambda z, k, b=block: log_sum_exp_over_keys(z, k, temperature=0.5, rows=b).mean(),
            "covariances": lambda z, _, b=block: off_diagonal_squares(z, z, rows=b),
            "correlations": lambda z, k, b=block: off_diagonal_squares(z, k[: len(z)], rows=b),
        }
        for name, function in functions.items():
            expected = value_and_gradient(function, z, keys)
            found = value_and_gradient(function, z.float().to(device), keys.float().to(device))
            case = f"{name} in blocks of {'the device' if block is None else block}"
            for what, one, two in zip(("value", "gradient"), found, expected, strict=True):
                findings.at_most(f"{case}: {what}", relative(one, two), 1e-4)


def value_and_gradient(function: Callable[[Tensor, Tensor], Tensor], z: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    z = z.clone().requires_grad_()
    value = function(z, keys)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach().cpu().double(), gradient.cpu().double()


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found.double().cpu() - expected.double().cpu()).norm() / expected.double().cpu().norm()).item()


def classifiers(findings: Findings, setting: Setting, device: torch.device) -> None:
    number, sizes = (300, argparse.Namespace(classes=3, features=8))
    if not setting.small:
        number, sizes = 5000, argparse.Namespace(classes=10, features=128)
    predicted, facts = {}, {}
    for where in (CPU, device):
        known, labels = clusters(sizes, number, "train", where)
        unknown, _ = clusters(sizes, number // 5, "test", where)
        nearest = knn_predict(known, labels, unknown, k=20, temperature=0.1, num_classes=sizes.classes)
        classifier, facts[where] = fit_linear(
            known,
            labels,
            penalties=[1e-3, 1e-2, 1e-1],
            validation_fraction=0.2,
            generator=stream(0, "probe split"),
        )
        predicted[where] = {"k-NN": nearest.cpu(), "linear": classifier.predict(unknown).cpu()}
    for name, of_cpu in predicted[CPU].items():
        others = (predicted[device][name] != of_cpu).double().mean().item()
        findings.at_most(f"share of images that {name} puts into another class", others, 5e-3)
    penalties = {found["penalty"] for found in facts.values()}
    findings.check("linear: converged", facts[device]["converged"])
    findings.check("linear: the same penalty", len(penalties) == 1, str(penalties))


def features(findings: Findings, setting: Setting, device: torch.device) -> None:
    width, number = (2, 8) if setting.small else (64, 512)
    encoder = materialize(build_encoder({"name": "resnet18", "width": width}), stream(0, "init"))
    images = torch.randint(0, 256, (number, 3, 32, 32), dtype=torch.uint8, generator=stream(0, "benchmark"))
    statistics: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "image_size": 32}
    expected = make_extractor(encoder, **statistics, device=CPU).clean(images)
    found = make_extractor(encoder, **statistics, device=device).clean(images)
    findings.at_most("features of ResNet-18 in float32", relative(found, expected), 1e-4)
    for precision in ("bfloat16", "tf32") if device.type == "cuda" else ("bfloat16",):
        try:
            extractor = make_extractor(encoder, **statistics, device=device, precision=precision)
        except TypeError:
            findings.note("features in lower precision are not in this version")
            return
        error = relative(extractor.clean(images), expected)
        findings.number(f"features of ResNet-18 in {precision}, relative error", error)
