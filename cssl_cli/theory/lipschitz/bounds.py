"""Lower and upper bounds on the Lipschitz constant L of the encoder. (docs/theory.md, 9.)

f is the encoder followed by scaling to unit norm, f = h/‖h‖; images are pixel values in 0 … 1, their normalisation
belongs to f, and distances of images are Euclidean over all pixels and channels. From below: the largest ratio
‖f(v) − f(v′)‖ / ‖v − v′‖ over stored views, and the norm of the Jacobian of f at single images. From above: a product
of operator norms bounds the constant L_h of h, and scaling to unit norm, on {‖h‖ ≥ ρ}, is the projection of h/ρ onto
the unit ball, so that ‖f(v) − f(v′)‖ ≤ (L_h/ρ) ‖v − v′‖ for any two images with ‖h‖ ≥ ρ.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cssl_cli.errors import InputError
from cssl_cli.features.geometry import unit_norm
from cssl_cli.theory.estimate import Absent, Estimate, Quantity, Sample
from cssl_cli.theory.lipschitz.spectral import FAILURE, UnknownModule, network_norm

MAX_VIEWS = 4000  # views of different images compared pair by pair
RESOLUTION = 1e-3  # pixel distance below which the features' own rounding may decide a ratio; a grey level is 0.0039
BLOCK_NUMBERS = 4_000_000  # distances, or numbers in differences of pairs, held at a time
GRAM_ERROR = 1e-12  # relative error of squared distances read off inner products
BATCH_IMAGES = 64  # images whose Jacobians are iterated together,
BATCH_PIXELS = BATCH_IMAGES * 96**2  # fewer of larger ones
GREY_LEVEL = 1 / 255  # the least distance between two different 8-bit images
DIAMETER = 2.0  # of the unit sphere
NO_IMAGES = Sample(0, 0)  # behind a number that is read off the weights alone


def lipschitz(
    encoder: nn.Module,
    views: Tensor,
    features: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    generator: torch.Generator,
    jacobian_images: int = 32,
    jacobian_steps: int = 20,
    max_views: int = MAX_VIEWS,
    norms: Tensor | None = None,
) -> dict[str, Quantity]:
    """All of this module: `largest_ratio`, `largest_ratio_same_image`, `local_jacobian_largest`,
    `local_jacobian_median`, `spectral_product`, `spectral_product_unscaled`.

    encoder: images → h, in eval mode, on the device of `views`. views: (N, V, C, H, W), float in 0 … 1. features: h of
    them, (N, V, D), not scaled. mean, std: of the normalisation. `generator`, on the CPU, draws the images that enter.
    norms: ‖h‖ of all views that `spectral_product` is to hold for, (N′, V), where these are more than the `views`.
    """
    features = features.double()
    norms = features.norm(dim=2) if norms is None else norms.double()
    ratios = largest_ratio(
        views.flatten(2), unit_norm(features), generator=generator, max_views=max_views, resolution=RESOLUTION
    )
    chosen = torch.randperm(len(views), generator=generator)[:jacobian_images].to(views.device)
    local = local_jacobian_norm(encoder, views[chosen, 0], mean, std, steps=jacobian_steps, generator=generator)
    product = spectral_product(
        encoder,
        input_shape=tuple(views.shape[2:]),
        std=std,
        least_norm=norms.min().item(),
        sample=Sample(*norms.shape),
        generator=generator,
    )
    return {**ratios, **local, **product}


# ---------------------------------------------------------------------- from below: pairs of stored views
class _Pairs(NamedTuple):
    """Pairs of views, as indices into the flattened table."""

    first: Tensor
    second: Tensor


def largest_ratio(
    vectors: Tensor,
    features: Tensor,
    *,
    generator: torch.Generator,
    max_views: int = MAX_VIEWS,
    resolution: float = 0.0,
) -> dict[str, Quantity]:
    """`largest_ratio` of ‖f(v) − f(v′)‖ to ‖v − v′‖ over pairs of stored views, and `largest_ratio_same_image`.

    vectors: (N, V, I), the pixels flattened; features: (N, V, D), already scaled. Two views of one image: all pairs.
    Views of different images: all pairs of as many images, drawn from `generator`, as have `max_views` views together.
    Pairs not further apart than `resolution` are left out, equal ones always. Ratios are computed from differences.
    Raises InputError if equal vectors have different features: then they do not belong together.
    """
    num_images, num_views, _ = vectors.shape
    if features.shape[:2] != vectors.shape[:2]:
        raise InputError(f"{tuple(vectors.shape[:2])} views have features of shape {tuple(features.shape)}")
    search = _Search(vectors.flatten(0, 1), features.flatten(0, 1), resolution)
    same = search.over(_same_image_pairs(num_images, num_views, search.pairs_at_once, vectors.device))
    num_chosen = min(num_images, max(1, max_views // num_views))
    all_images = num_chosen == num_images
    images = torch.arange(num_images) if all_images else torch.randperm(num_images, generator=generator)[:num_chosen]
    places = (images.unsqueeze(1) * num_views + torch.arange(num_views)).flatten().to(vectors.device)
    largest = search.over(search.promising(places, at_least=same), at_least=same)
    which = "all of them" if all_images else f"those of different images among {num_chosen} images drawn at random"
    left_out = f"; pairs within {resolution:g} of each other left out" if resolution > 0 else ""
    words = "largest ratio of feature distance to pixel distance over pairs of stored views"
    return {
        "largest_ratio": Absent("no two stored views differ")
        if largest is None
        else Estimate(largest, f"{words}, {which}{left_out}", "low", Sample(num_chosen, num_views)),
        "largest_ratio_same_image": Absent("no image has two stored views that differ")
        if same is None
        else Estimate(same, f"{words} of one image{left_out}", "low", Sample(num_images, num_views)),
    }


def _same_image_pairs(num_images: int, num_views: int, at_once: int, device: torch.device) -> Iterator[_Pairs]:
    """All pairs of two views of one image, in blocks."""
    image = torch.arange(num_images, device=device) * num_views
    for one, other in itertools.combinations(range(num_views), 2):
        for block in image.split(at_once):
            yield _Pairs(block + one, block + other)


class _Search:
    """The largest ratio over pairs of points: `vectors` (M, I) with their `features` (M, D)."""

    def __init__(self, vectors: Tensor, features: Tensor, resolution: float) -> None:
        self.vectors, self.features, self.resolution = vectors, features, resolution
        self.pairs_at_once = max(1, BLOCK_NUMBERS // (vectors.shape[1] + features.shape[1]))

    def over(self, blocks: Iterator[_Pairs], at_least: float | None = None) -> float | None:
        """Largest ratio over blocks of pairs, from differences; `at_least` is known already. None without a pair."""
        best = at_least
        for pairs in blocks:
            apart = (self.vectors[pairs.first].double() - self.vectors[pairs.second].double()).norm(dim=1)
            moved = (self.features[pairs.first].double() - self.features[pairs.second].double()).norm(dim=1)
            if bool((moved[apart == 0] > 0.01 * self.features.abs().max()).any()):
                raise InputError("two views with the same pixels have different features: they do not belong together")
            counted = apart > self.resolution
            if bool(counted.any()):
                ratio = (moved[counted] / apart[counted]).max().item()
                best = ratio if best is None else max(best, ratio)
        return best

    def promising(self, places: Tensor, at_least: float | None) -> Iterator[_Pairs]:
        """Blocks of pairs among `places` that contain every pair of largest ratio.

        Squared distances from inner products are right to `GRAM_ERROR` of the largest squared norm. A pair is handed
        out if, within that error, its ratio may exceed the largest of the ratios that are certain.
        """
        vectors, features = self.vectors[places].double(), self.features[places].double()
        vectors, features = vectors - vectors.mean(dim=0), features - features.mean(dim=0)
        if bool((features == features[0]).all()):  # every ratio is 0, and one pair shows it
            farthest = (vectors - vectors[0]).square().sum(dim=1).argmax()
            yield _Pairs(places[:1], places[farthest].unsqueeze(0))
            return
        vector_squares, feature_squares = vectors.square().sum(dim=1), features.square().sum(dim=1)
        vector_error = GRAM_ERROR * (vector_squares.max().item() + 1e-300)
        feature_error = GRAM_ERROR * (feature_squares.max().item() + 1e-300)
        certain = 0.0 if at_least is None else at_least**2
        order = torch.arange(len(places), device=places.device)
        for block in order.split(max(1, BLOCK_NUMBERS // len(places))):
            start = int(block[0])
            apart = _squared_distances(vectors[block], vectors[start:], vector_squares[block], vector_squares[start:])
            moved = _squared_distances(
                features[block], features[start:], feature_squares[block], feature_squares[start:]
            )
            later = order[start:].unsqueeze(0) > block.unsqueeze(1)
            near = apart <= self.resolution**2 + 2 * vector_error
            at_least_ratio = torch.where(later & ~near, (moved - feature_error) / (apart + vector_error), -torch.inf)
            certain = max(certain, at_least_ratio.max().item())
            at_most_ratio = (moved + feature_error) / (apart - vector_error)
            rows, columns = (later & (near | (at_most_ratio >= certain))).nonzero(as_tuple=True)
            for first, second in zip(
                places[block[rows]].split(self.pairs_at_once),
                places[start:][columns].split(self.pairs_at_once),
                strict=True,
            ):
                yield _Pairs(first, second)


def _squared_distances(first: Tensor, second: Tensor, first_squares: Tensor, second_squares: Tensor) -> Tensor:
    return first_squares.unsqueeze(1) + second_squares.unsqueeze(0) - 2 * first @ second.T


# ---------------------------------------------------------------------- from below: Jacobians at single images
def local_jacobian_norm(
    encoder: nn.Module,
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    steps: int,
    generator: torch.Generator,
) -> dict[str, Quantity]:
    """`local_jacobian_largest` and `local_jacobian_median` over images (n, C, H, W), float in 0 … 1.

    Spectral norms of the Jacobian of f at the images, by `steps` of power iteration on JᵀJ from a random start: each a
    lower bound of the norm there, in the floating-point type of the images. An image with h = 0 is left out.
    """
    training = encoder.training
    encoder.eval()
    at_once = max(1, min(BATCH_IMAGES, BATCH_PIXELS // math.prod(images.shape[2:])))
    try:
        norms = torch.cat(
            [_jacobian_norms(encoder, block, mean, std, steps, generator) for block in images.split(at_once)]
        )
    finally:
        encoder.train(training)
    norms = norms[torch.isfinite(norms)]
    if len(norms) == 0:
        absent = Absent("no image has features other than zero")
        return {"local_jacobian_largest": absent, "local_jacobian_median": absent}
    sample = Sample(len(norms), 1)
    words = f"spectral norm of the Jacobian of the unit-norm encoder at clean images, {steps} steps of power iteration"
    return {
        "local_jacobian_largest": Estimate(norms.max().item(), f"{words}; largest over images", "low", sample),
        "local_jacobian_median": Estimate(norms.quantile(0.5).item(), f"{words}; median over images", "low", sample),
    }


def _jacobian_norms(
    encoder: nn.Module,
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Norm (B,) at each image, NaN where h = 0. In eval mode an image's features depend on that image alone."""
    # Fused attention has no second derivative.
    with torch.inference_mode(False), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        direction = _unit(torch.randn(images.shape, generator=generator).to(images))
        inputs = images.clone().requires_grad_()
        offset, scale = (inputs.new_tensor(list(values)).view(1, -1, 1, 1) for values in (mean, std))
        outputs = encoder((inputs - offset) / scale)
        length = outputs.norm(dim=1, keepdim=True)
        outputs = outputs / torch.where(length > 0, length, torch.nan)
        # Jᵀu is linear in u, and its derivative along v is J v: both products need one forward pass only.
        probe = torch.zeros_like(outputs, requires_grad=True)
        pulled = _pulled_back(outputs, inputs, probe, create_graph=True)
        for _ in range(steps):
            pushed = _pulled_back(pulled, probe, direction, retain_graph=True)
            direction = _unit(_pulled_back(outputs, inputs, pushed, retain_graph=True))
        pushed = _pulled_back(pulled, probe, direction)
    return pushed.double().norm(dim=1)


def _pulled_back(
    outputs: Tensor, inputs: Tensor, weights: Tensor, *, create_graph: bool = False, retain_graph: bool | None = None
) -> Tensor:
    """The gradient of ⟨outputs, weights⟩. `grad` loads sympy when it is given the weights: more than a second."""
    product = (outputs * weights).sum()
    (gradient,) = torch.autograd.grad(product, inputs, retain_graph=retain_graph, create_graph=create_graph)
    return gradient


def _unit(vectors: Tensor) -> Tensor:
    """Each (B, ...) at length 1; zero stays zero."""
    return unit_norm(vectors.flatten(1)).reshape(vectors.shape)


# ---------------------------------------------------------------------- from above: products of operator norms
def spectral_product(
    encoder: nn.Module,
    *,
    input_shape: tuple[int, ...],
    std: Sequence[float],
    least_norm: float,
    sample: Sample,
    generator: torch.Generator,
) -> dict[str, Quantity]:
    """`spectral_product_unscaled`, an upper bound of the constant L_h of images → h, and `spectral_product`, of L.

    input_shape: (C, H, W). least_norm: ρ, the least ‖h‖ over the stored views, whose number is `sample`; the second
    bound holds for every two images with ‖h‖ ≥ ρ, and is vacuous if it lets two 8-bit images that differ by one grey
    level be as far apart as the sphere allows. The norm of a large convolution is bounded with high probability over
    `generator`, never by a lower estimate (`cssl_cli.theory.lipschitz.spectral`).
    """
    try:
        norm = network_norm(encoder, input_shape=input_shape, std=std, generator=generator)
    except UnknownModule as unknown:
        absent = Absent(f"there is no rule for the Lipschitz constant of {unknown}")
        return {"spectral_product": absent, "spectral_product_unscaled": absent}
    margin = norm.high / norm.low if norm.low > 0 else 1.0
    words = (
        "product over layers of operator norms (batch norm folded in, residual blocks ‖branch‖ + ‖shortcut‖), at most "
        f"{margin:.3g} times that of the exact norms; wrong with probability {FAILURE:g} a layer"
    )
    least = f"upper bound for images with ‖h‖ at least the least stored, {least_norm:.3g}: "
    return {
        "spectral_product_unscaled": _upper(
            norm.high, "upper bound for the encoder before scaling: " + words, NO_IMAGES
        ),
        "spectral_product": _upper(norm.high / least_norm, least + words, sample, DIAMETER / GREY_LEVEL)
        if least_norm > 0
        else Absent("a stored view has features zero"),
    }


def _upper(bound: float, estimator: str, sample: Sample, vacuous_from: float | None = None) -> Quantity:
    if not math.isfinite(bound):
        return Absent("the product of the layers' norms is too large for a number")
    vacuous = None if vacuous_from is None else bound >= vacuous_from
    return Estimate(bound, estimator, "high", sample, vacuous=vacuous)
