"""Concentration of a recipe's augmented images, in pixels or in the features of a trained encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from cssl_cli.runs.dealing import dealt
from cssl_cli.runs.device import choose_device
from cssl_cli.runs.finished import counter, untrained_encoder
from cssl_cli.runs.images import prepare_data
from cssl_cli.runs.run_dir import RESULTS_FORMAT
from cssl_cli.runs.team import Team
from cssl_cli.runs.views import Material, Measured, gather
from cssl_cli.theory.concentration.refined_distance import refined_concentration
from cssl_cli.theory.concentration.sigma import concentration, pixels, standardized_pixels
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
        "concentration": dealt(concentrations(material, settings, tables, recipe.seed, reporter), team),
    }


def facts(material: Material) -> dict[str, Any]:
    """What was measured on, for the head of a result."""
    return {
        "part": material.part,
        "num_images": len(material.images),
        "class_names": None if material.labels is None else list(material.class_names),
        **({"views_of_two_kinds": True} if isinstance(material.augmentation, TwoSided) else {}),
    }


def concentrations(
    material: Material, settings: Mapping[str, Any], tables: Mapping[str, Tensor], seed: int, reporter: Reporter
) -> dict[str, Callable[[], Quantities]]:
    """What measures concentration in each distance that `settings` name; `tables` holds raw features (N, V, D).

    Nearer views are searched for only in the first pixel distance: the search takes longer than everything else.
    """
    searched = next((name for name in settings["distances"] if name in PIXEL_DISTANCES), None)
    measure = partial(concentration_in, material=material, settings=settings, seed=seed, reporter=reporter)
    return {
        name: partial(measure, name, table=tables.get(name), search=name == searched) for name in settings["distances"]
    }


def concentration_in(
    name: str,
    material: Material,
    settings: Mapping[str, Any],
    table: Tensor | None,
    seed: int,
    reporter: Reporter,
    *,
    search: bool = False,
) -> Quantities:
    """Concentration in the pixel distance `name` or, given a `table` of raw features (N, V, D), in those features.

    search: whether to search for nearer views, in pixels.
    """
    if table is not None:
        return concentration_in_features(name, material, settings, table, seed, reporter)

    def vectors_of(rows: Tensor) -> Tensor:
        views = material.views(rows)
        return PIXEL_DISTANCES[name](views.flatten(0, 1)).unflatten(0, views.shape[:2])

    what = name.replace("_", " ")
    found = _concentration(vectors_of, what, material, settings, seed, reporter)
    deltas = found["deltas"]["value"]
    if search and settings["refine_pairs"] and deltas is not None and material.num_views > 1:
        assert material.labels is not None
        refined = refined_concentration(
            material.images,
            material.labels,
            material.class_names,
            material.augmentation,
            material.theta,
            to_vectors=PIXEL_DISTANCES[name],
            num_pairs=settings["refine_pairs"],
            steps=REFINE_STEPS,
            deltas_absolute=deltas,
            generator=stream(seed, "refine"),
            device=material.device,
            advance=counter(reporter, f"refine the distances in {what}", REFINE_STEPS),
        )
        found |= {quantity: entry.to_dict() for quantity, entry in refined.items()}
    return found


def concentration_in_features(
    name: str, measured: Measured, settings: Mapping[str, Any], table: Tensor, seed: int, reporter: Reporter
) -> Quantities:
    """Concentration in the raw features (N, V, D) of a table, called `name`, once scaled to unit norm."""

    def vectors_of(rows: Tensor) -> Tensor:
        return unit_norm(table[rows].to(measured.device).double())

    return _concentration(vectors_of, f"{name.replace('_', ' ')} features", measured, settings, seed, reporter)


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
