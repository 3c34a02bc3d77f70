"""What the augmentations of a sweep do to its images, row by row, without training anything."""

from __future__ import annotations

from typing import Any

from cssl_cli.host.files import require_writable
from cssl_cli.host.progress import Reporter
from cssl_cli.recipe import Recipe
from cssl_cli.runs.run_dir import RunDir
from cssl_cli.sweep.request import SweepRequest, require_one_root
from cssl_cli.sweep.sweep import Member
from cssl_cli.sweep.workers.stages import Workshop

CONCENTRATION = "concentration.json"


def concentrate_sweep(request: SweepRequest, reporter: Reporter) -> dict[str, Any]:
    """The concentration of each row's augmented images.

    For a whole sweep, writes the result beside the runs. Each row is measured with its first seed; rows with the same
    images and augmentation are measured once.
    """
    from cssl_cli.runs.concentrate import analyze_recipe

    home = RunDir(request.home)
    require_writable(home.path, "Choose another folder with --out DIR.")
    require_one_root(request)
    workshop = Workshop(home.path, reporter, request.device, request.data_root)
    first_of_row: dict[str, Member] = {}
    for member in request.members:
        first_of_row.setdefault(member.row, member)
    alike: dict[str, list[Member]] = {}
    for member in first_of_row.values():
        alike.setdefault(_views_and_distances(member.recipe), []).append(member)
    rows = []
    for number, same_views in enumerate(alike.values(), start=1):
        first, *others = same_views
        reporter.say(f"[{number}/{len(alike)}] {', '.join(member.row for member in same_views)}")
        result = analyze_recipe(
            first.recipe, reporter=reporter, device_name=request.device, dataset=workshop.dataset(first.recipe)
        )
        same = [member.row for member in others]
        rows.append({"row": first.row, "same": same, "axes": dict(first.axes), "seed": first.seed, **result})
    content = {"sweep": request.sweep.name, "rows": rows}
    if len(request.members) == len(request.sweep.members):
        home.write_json(CONCENTRATION, content)
    return content


def _views_and_distances(recipe: Recipe) -> str:
    """Everything that the concentration of a recipe's augmented images depends on."""
    analysis = recipe.settings("analyze")
    blocks = ["data", "augment", *(["encoder"] if "untrained" in analysis["distances"] else [])]
    return repr([recipe.seed, analysis, *(recipe.settings(block) for block in blocks)])
