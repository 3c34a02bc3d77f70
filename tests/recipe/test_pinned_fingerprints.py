"""The fingerprints of what ships, written down: they name the run directories of its users, and must not change."""

from __future__ import annotations

import hashlib

import pytest

from cssl_cli.recipe import load_recipe
from cssl_cli.recipe.files import shipped_names
from cssl_cli.sweep.sweep import load_sweep

RECIPES = {
    "barlow_twins-cifar10": "1015a011bb",
    "barlow_twins-cifar10-small": "364b07a274",
    "barlow_twins-shapes": "ff7d9ecc77",
    "byol-cifar10": "0ff21b2b6e",
    "byol-cifar10-small": "25d6ddca0b",
    "byol-shapes": "4406d825d4",
    "moco-cifar10": "6ffd2d6dd2",
    "moco-cifar10-small": "c9e08cf123",
    "moco-shapes": "3d54fd596d",
    "simclr-cifar10": "af07c667d0",
    "simclr-cifar10-small": "7572f06cd1",
    "simclr-folder": "c1b46adba0",
    "simclr-shapes": "c0a37766c0",
    "simple_contrastive-shapes": "3fbff6f956",
    "simsiam-cifar10": "ebd5241f9c",
    "simsiam-cifar10-small": "84e06876f0",
    "simsiam-shapes": "b1866d31a8",
    "t_infonce-cifar10": "6e33786d6f",
    "t_infonce-cifar10-small": "b2a829e195",
    "t_infonce-shapes": "26aaf310ca",
    "vicreg-cifar10": "d8b7272e96",
    "vicreg-cifar10-small": "0686dce877",
    "vicreg-shapes": "c0f1daa919",
}
# Of a sweep the number of its members, and a digest over their names and fingerprints.
SWEEPS = {
    "methods-shapes": (16, "9b0209cc1b"),
    "paper-pairs": (33, "a94a8ec42f"),
    "paper-pairs-cifar100": (33, "1ac5249501"),
    "paper-pairs-small": (22, "736f9aad23"),
    "paper-richness": (72, "f09d52079b"),
    "paper-richness-cifar100": (72, "8f196e0c10"),
    "paper-richness-small": (48, "8fdf460108"),
    "paper-strength": (60, "d47d3b230f"),
    "paper-strength-cifar100": (60, "7413a20529"),
    "paper-strength-small": (40, "86fe9596bc"),
    "quickstart": (6, "7fef832ca5"),
}


def test_every_shipped_file_is_here() -> None:
    assert (set(RECIPES), set(SWEEPS)) == (set(shipped_names("recipe")), set(shipped_names("sweep")))


@pytest.mark.parametrize("name", RECIPES)
def test_fingerprint_of_a_recipe(name: str) -> None:
    overrides = ["data.root=/images"] if name == "simclr-folder" else []
    assert load_recipe(name, overrides).fingerprint == RECIPES[name]


@pytest.mark.parametrize("name", SWEEPS)
def test_fingerprints_of_a_sweep(name: str) -> None:
    lines = [f"{member.name} {member.fingerprint}" for member in load_sweep(name).members]
    assert (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:10]) == SWEEPS[name]
