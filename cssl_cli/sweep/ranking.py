"""The ranking of a sweep's augmentations before any training, kept in rank.json beside the runs.

A share belongs to a set of augmentations, not to an encoder: each set is measured once, on the same images, filters and
random numbers as the others, whichever members train with it. They are the numbers of `cssl rank`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cssl_cli.errors import DamagedError
from cssl_cli.host.sealed_folder import SealedFolder
from cssl_cli.recipe import Recipe
from cssl_cli.recipe.blocks import Block
from cssl_cli.recipe.recipe import deciding
from cssl_cli.runs import stored
from cssl_cli.runs.lock import holding
from cssl_cli.sweep.sweep import Member, Sweep
from cssl_cli.sweep.workers.stages import Workshop

RANK = "rank.json"
LOCK = "rank.lock"
RANK_FORMAT = 1  # raise it when the same set of augmentations begins to mean other numbers


@dataclass(frozen=True)
class SetToRank:
    """A set of augmentations and the rows that train with it; `recipe` is that of the first."""

    recipe: Recipe
    rows: tuple[str, ...]


@dataclass(frozen=True)
class HowToRank:
    """On how many images; the filters and the views follow from the seed, that of the sweep's first member."""

    num_images: int
    seed: int

    @classmethod
    def of(cls, sweep: Sweep) -> HowToRank | None:
        """None for a sweep that is not ranked."""
        return None if sweep.rank is None else cls(sweep.rank, sweep.members[0].recipe.seed)

    def settings(self, recipe: Recipe) -> dict[str, Any]:
        """All that decides the numbers of the recipe's augmentation, but for the content of the images."""
        return {**vars(self), "data": _as_json(recipe.data), "augment": _as_json(recipe.augment)}

    def key(self, recipe: Recipe) -> str:
        """The settings in one string."""
        return _key(self.settings(recipe))


@lru_cache(maxsize=1024)  # members of a sweep share their blocks
def _as_json(block: Block) -> dict[str, Any]:
    return deciding(block)


def _key(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


class _Home(SealedFolder):
    def needs_checksum(self, name: str) -> bool:  # noqa: ARG002
        return True


@dataclass(frozen=True)
class Ranking:
    """The measured sets, by key. damage: a sentence if the file is damaged and hence ignored."""

    sets: Mapping[str, Mapping[str, Any]]
    damage: tuple[str, ...] = ()


def read_ranking(home: Path) -> Ranking:
    """What rank.json in the sweep's folder holds; nothing if there is none, or one of another format."""
    folder = _Home(home)
    try:
        content = folder.read_json(RANK)
        if content is None or (isinstance(content.get("format"), int) and content["format"] != RANK_FORMAT):
            return Ranking({})
        try:
            stored.require(stored.Ranking, content)
        except ValueError as error:
            raise folder.damaged(RANK, str(error)) from error
    except DamagedError as error:
        return Ranking({}, (str(error),))
    return Ranking({_key(entry["settings"]): entry for entry in content["sets"]})


def ranked_beside(
    runs: Mapping[Path, str | None], recipe_of: Callable[[Path], Recipe]
) -> dict[Path, Mapping[str, Any]]:
    """What rank.json in the folders of runs, which a sweep left there, says of their augmentations.

    runs: by path, the key of the images that the run was analysed on; numbers of other images do not count. Those of
    all runs are on equally many images with the same seed, those that most runs have.
    """
    folders = {path: path.resolve().parent for path in runs}
    rankings = {folder: read_ranking(folder).sets for folder in dict.fromkeys(folders.values())}
    found: dict[HowToRank, dict[Path, Mapping[str, Any]]] = {}
    for path, content_key in runs.items():
        sets = rankings[folders[path]]
        settings = [entry["settings"] for entry in sets.values()]
        for how in dict.fromkeys(HowToRank(one.get("num_images", 0), one.get("seed", 0)) for one in settings):
            entry = sets.get(how.key(recipe_of(path)))
            if entry is not None and entry["content_key"] == content_key:
                found.setdefault(how, {})[path] = entry
    return found[max(found, key=lambda how: (len(found[how]), how.num_images))] if found else {}


def sets_of(members: Iterable[Member], how: HowToRank) -> dict[str, SetToRank]:
    """The different sets of augmentations of the members, by key; of each image set its own."""
    found: dict[str, SetToRank] = {}
    for member in members:
        key = how.key(member.recipe)
        known = found.get(key)
        if known is None:
            found[key] = SetToRank(member.recipe, (member.row,))
        elif member.row not in known.rows:
            found[key] = SetToRank(known.recipe, (*known.rows, member.row))
    return found


def rank_sets(home: Path, sets: Sequence[SetToRank], how: HowToRank, workshop: Workshop) -> None:
    """Measure the sets that rank.json lacks, or has of other images, and add each to it once it is measured.

    `InUseError` if another process does so now; CsslError for images that cannot be read or ranked.
    """
    from cssl_cli.runs.device import choose_device
    from cssl_cli.runs.rank import SharesOn

    device = choose_device(workshop.device_name)
    of_data: dict[Block, list[SetToRank]] = {}
    for one in sets:
        of_data.setdefault(one.recipe.data, []).append(one)
    done = 0
    with holding(home / LOCK):
        known = dict(read_ranking(home).sets)  # which nobody else changes meanwhile
        for together in of_data.values():
            dataset = workshop.dataset(together[0].recipe)
            measured = SharesOn.images_of(dataset, how.num_images, how.seed, device)
            for one in together:
                key = how.key(one.recipe)
                if known.get(key, {}).get("content_key") != dataset.content_key:
                    quantities = measured.quantities(one.recipe)
                    known[key] = {
                        "rows": list(one.rows),
                        "settings": how.settings(one.recipe),
                        "content_key": dataset.content_key,
                        **{name: quantity.to_dict() for name, quantity in quantities.items()},
                    }
                    _Home(home).write_json(RANK, {"format": RANK_FORMAT, "sets": list(known.values())})
                done += 1
                workshop.reporter.advance("rank the augmentations", done, len(sets))
