"""Concentration of a recipe's augmented images, in pixels or in the features of a trained encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from cssl_cli.augment.two_sided import TwoSided
from cssl_cli.data import Dataset
from cssl_cli.errors import InputError
from cssl_cli.features.extractor import FeatureExtractor
from cssl_cli.features.geometry import unit_norm
from cssl_cli.host.progress import Reporter
from cssl_cli.host.randomness import stream
from cssl_cli.nn.ranks import ALONE
from cssl_cli.recipe import Recipe
from cssl_cli.runs.dealing import Part, dealt
from cssl_cli.runs.device import choose_device
from cssl_cli.runs.finished import counter, untrained_encoder
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.run_dir import RESULTS_FORMAT
from cssl_cli.runs.team import Team
from cssl_cli.runs.views import Material, Measured, gather
from cssl_cli.theory.concentration.pixel_vectors import pixels, standardized_pixels
from cssl_cli.theory.concentration.refined_distance import refined_concentration
from cssl_cli.theory.concentration.sigma import concentration, yardstick
from cssl_cli.theory.concentration.star import star

PIXEL_DISTANCES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "pixels": pixels,
    "standardized_pixels": standardized_pixels,
}
BETWEEN_IMAGES = 1000  # at most; images that stand for the pairs of different classes
REFINE_STEPS = 60
STAR_IMAGES = 2000  # roughly at most; images that stand for the population's σ

Quantities = dict[str, dict[str, Any]]


def analyze_recipe(
    recipe: Recipe,
    *,
    reporter: Reporter,
    device_name: str | None = None,
    changes: Mapping[str, Any] | None = None,
    dataset: Dataset | None = None,
    data_root: str | None = None,
    team: Team | None = None,
) -> dict[str, Any]:
    """The concentration of the recipe's augmented images, before any training.

    `changes` replace settings of the recipe's analyze block. The distance `trained` is skipped. The ranks of a `team`
    share the features, and then the distances; all come to the same.
    """
    team = team or Team(ALONE)
    device = choose_device(team.device_name(device_name))
    settings = recipe.settings("analyze") | dict(changes or {})
    settings["distances"] = tuple(name for name in settings["distances"] if name != "trained")
    if not settings["distances"]:
        raise InputError(
            "no distance is left without a trained encoder",
            where="analyze.distances",
            remedy="Give pixels, standardized_pixels or untrained, or analyze a finished run.",
        )
    with team.rank_0_first():
        dataset = dataset or prepare_data(recipe, reporter, data_root=data_root)
    material = gather(recipe, dataset, settings, device)
    tables: dict[str, Tensor] = {}
    if "untrained" in settings["distances"]:
        extractor = material.extractor(untrained_encoder(recipe, dataset.channels), team.ranks)
        with team.explaining():
            tables["untrained"] = feature_table(extractor, material, "features of the untrained encoder", reporter)
    return {
        "format": RESULTS_FORMAT,
        "recipe": recipe.name,
        "content_key": dataset.content_key,
        "settings": settings,
        **facts(material),
        "concentration": concentrations(
            dealt(concentration_parts(material, settings, tables, recipe.seed, reporter), team), settings
        ),
    }


def facts(material: Material) -> dict[str, Any]:
    """What was measured on, for the head of a result."""
    return {
        "part": material.part,
        "num_images": len(material.images),
        "class_names": None if material.labels is None else list(material.class_names),
        **({"views_of_two_kinds": True} if isinstance(material.augmentation, TwoSided) else {}),
    }


def concentration_parts(
    material: Material, settings: Mapping[str, Any], tables: Mapping[str, Tensor], seed: int, reporter: Reporter
) -> dict[str, Part]:
    """What measures concentration in each distance that `settings` name; `tables` holds raw features (N, V, D).

    Nearer views are searched for only in the first pixel distance, as the search takes as long as the distance. Those
    that take longest come first.
    """
    in_pixels = [name for name in settings["distances"] if name in PIXEL_DISTANCES]
    in_features = [name for name in settings["distances"] if name not in in_pixels]
    others = material, settings, seed, reporter
    return {
        **{
            f"concentration {name}": partial(_concentration, _pixel_vectors(name, material), _words(name), *others)
            for name in in_pixels
        },
        **{f"search {name}": partial(_search, name, *others) for name in in_pixels[:1]},
        **{
            f"concentration {name}": partial(
                concentration_in_features, name, material, settings, tables[name], seed, reporter
            )
            for name in in_features
        },
    }


def concentrations(found: Mapping[str, Quantities], settings: Mapping[str, Any]) -> dict[str, Quantities]:
    """Concentration in each distance, from what the parts of it came to."""
    return {
        name: {**found[f"concentration {name}"], **found.get(f"search {name}", {})} for name in settings["distances"]
    }


def _search(name: str, material: Material, settings: Mapping[str, Any], seed: int, reporter: Reporter) -> Quantities:
    """How much nearer views come, in the pixel distance `name`, after a search; nothing where that is not asked for."""
    if not settings["refine_pairs"] or material.num_views == 1:
        return {}
    unit = yardstick(
        _pixel_vectors(name, replace(material, theta=material.theta[:, :0])),
        material.labels,
        between_images=BETWEEN_IMAGES,
        generator=stream(seed, "concentration"),
    )
    if unit is None:
        return {}
    refined = refined_concentration(
        material.images,
        material.labels,
        material.class_names,
        material.augmentation,
        material.theta,
        to_vectors=PIXEL_DISTANCES[name],
        num_pairs=settings["refine_pairs"],
        steps=REFINE_STEPS,
        deltas_absolute=[delta * unit for delta in settings["deltas"]],
        generator=stream(seed, "refine"),
        device=material.device,
        advance=counter(reporter, f"refine the distances in {_words(name)}", REFINE_STEPS),
    )
    return {quantity: entry.to_dict() for quantity, entry in refined.items()}


def _pixel_vectors(name: str, material: Material) -> Callable[[Tensor], Tensor]:
    def vectors_of(rows: Tensor) -> Tensor:
        views = material.views(rows)
        return PIXEL_DISTANCES[name](views.flatten(0, 1)).unflatten(0, views.shape[:2])

    return vectors_of


def _words(name: str) -> str:
    return name.replace("_", " ")


def concentration_in_features(
    name: str, measured: Measured, settings: Mapping[str, Any], table: Tensor, seed: int, reporter: Reporter
) -> Quantities:
    """Concentration in the raw features (N, V, D) of a table, called `name`, once scaled to unit norm."""

    def vectors_of(rows: Tensor) -> Tensor:
        return unit_norm(table[rows].to(measured.device).double())

    return _concentration(vectors_of, f"{_words(name)} features", measured, settings, seed, reporter)


def _concentration(
    vectors_of: Callable[[Tensor], Tensor],
    what: str,
    measured: Measured,
    settings: Mapping[str, Any],
    seed: int,
    reporter: Reporter,
) -> Quantities:
    """Concentration of the vectors (n, V, D) of the images at given rows (n,)."""
    terms = concentration(
        vectors_of,
        measured.labels,
        measured.class_names,
        num_views=measured.num_views,
        deltas=settings["deltas"],
        between_images=BETWEEN_IMAGES,
        generator=stream(seed, "concentration"),
        advance=counter(reporter, f"concentration in {what}", measured.num_images),
    )
    terms |= star(
        vectors_of,
        measured.labels,
        measured.class_names,
        num_views=measured.num_views,
        deltas=settings["deltas"],
        max_images=STAR_IMAGES,
        generator=stream(seed, "star"),
    )
    return {quantity: entry.to_dict() for quantity, entry in terms.items()}


def feature_table(extractor: FeatureExtractor, material: Material, what: str, reporter: Reporter) -> Tensor:
    """Raw features (N, V, D) of the material's views."""
    advance = counter(reporter, what, len(material.images) * material.num_views)
    return extractor.view_table(material.images, material.augmentation, material.theta, advance=advance)
