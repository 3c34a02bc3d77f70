"""Reports of recipes: the list of shipped ones, one recipe as resolved, and what running it would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from cssl_cli.errors import DamagedError, InputError, shown_command, shown_path
from cssl_cli.recipe.book import list_recipes
from cssl_cli.recipe.files import find, follow, read_text, shipped_paths
from cssl_cli.report.layout import console, note, print_json, table
from cssl_cli.runs.run_dir import CHECKPOINT, RunDir

if TYPE_CHECKING:
    from cssl_cli.recipe import Recipe
    from cssl_cli.runs.outlook import Outlook


def show_recipes(as_json: bool) -> None:
    """Print every shipped recipe and sweep: what it is, how long it takes, what it gives."""
    listings = list_recipes()
    if as_json:
        return print_json([{**asdict(listing), "path": str(listing.path)} for listing in listings])
    out = console()
    for kind, verb in (("sweep", "cssl sweep NAME"), ("recipe", "cssl pretrain NAME")):
        grid = table(f"{kind} ({verb})", "", text_columns=2)
        for listing in listings:
            if listing.kind == kind:
                said = Text(f"{listing.summary}\nTime: {listing.time}\nResult: {listing.result}")
                grid.add_row(listing.name, said)
                grid.add_section()
        out.print(grid)
        out.print()
    return note(out, "Print one: cssl recipes NAME. Write one to edit: cssl recipes NAME --copy")


def show_recipe(name: str, overrides: Sequence[str], as_json: bool) -> None:
    """Print a recipe as resolved with its overrides, under its file's header; a sweep as it is in its file."""
    from cssl_cli.recipe import load_recipe

    path = find(name, None)
    chain, text = follow(path), read_text(path)
    if chain.kind == "sweep":
        if overrides:
            raise InputError(
                f"overrides do not show in a sweep's file: {' '.join(overrides)}",
                remedy=f"See their effect with: {shown_command('cssl', 'sweep', name, *overrides, '--dry-run')}",
            )
        return print_json({"name": name, "text": text}) if as_json else print(text, end="")
    try:
        recipe = load_recipe(name, overrides)
    except InputError as error:
        if overrides or path not in shipped_paths():
            raise
        # Only values that the user must supply are missing.
        return print_json({"name": name, "text": text}) if as_json else print(f"{text.rstrip()}\n# {error.what}")
    if as_json:
        return print_json({"fingerprint": recipe.fingerprint, "recipe": recipe.model_dump(mode="json", by_alias=True)})
    header = "".join(takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    return print(header + recipe.to_yaml(), end="")


def show_plan(recipe: Recipe, out_dir: Path, outlook: Outlook, as_json: bool) -> None:
    """Print what `cssl pretrain` would do: the resolved recipe, what it takes, the run directory, and how far it is."""
    run = RunDir.at(out_dir, name=recipe.name, fingerprint=recipe.fingerprint)
    state = run_state(run)
    if as_json:
        return print_json(
            {
                "run": str(run.path),
                "state": state,
                "recipe": recipe.model_dump(mode="json", by_alias=True),
                "num_images": outlook.num_images,
                "bytes_of_image": outlook.bytes_of_image,
                "bytes_of_images": outlook.bytes_of_images,
                "gflop_of_image": outlook.gflop,
                "warnings": outlook.warnings,
            }
        )
    print(recipe.to_yaml(), end="")
    out = console()
    out.print()
    for line in _outlook_lines(outlook):
        out.print(line, soft_wrap=True)
    text = (
        f"finished already: {shown_path(run.path)}"
        if state == "finished"
        else f"would run in {shown_path(run.path)} ({state})"
    )
    out.print(text, soft_wrap=True)
    return None


def _outlook_lines(outlook: Outlook) -> list[str]:
    """What is known of the images and of the encoder's work, and what to think of that."""
    lines, number = [], outlook.num_images
    if outlook.stored is not None:
        shape = " x ".join(map(str, outlook.stored))
        counted = "an unknown number of images" if number is None else f"{number:,} images"
        total = "" if outlook.bytes_of_images is None else f": {_gigabytes(outlook.bytes_of_images)}"
        lines.append(f"{counted}, stored as {shape} bytes each{total}")
    elif number is not None:
        lines.append(f"{number:,} images")
    if outlook.gflop is not None:
        lines.append(f"{outlook.gflop:.3g} GFLOP an image and forward pass of the encoder")
    return lines + [f"note: {warning}" for warning in outlook.warnings]


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def run_state(run: RunDir, *, lacking: bool = False) -> str:
    """new, half-finished, stopped (by successive halving), failed (before its first checkpoint), finished, or damaged.

    Damaged: the status is unreadable. One that is finished and `lacking` measurements, or has them of an earlier
    version, is trained.
    """
    try:
        state = run.status()["state"]
        if run.finished:
            return "trained" if lacking else "finished"
        if state == "interrupted" and run.status().get("stopped"):
            return "stopped"
    except DamagedError:
        return "damaged"
    if run.file(CHECKPOINT).exists():
        return "half-finished"
    return "failed" if state == "failed" else "new"
