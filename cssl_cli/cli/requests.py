"""Requests: the options of a command, read and checked before anything slow is imported.

Options that can be checked on their own are checked in options.py and runs/options.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cssl_cli.errors import InputError, unknown_name
from cssl_cli.host.files import exists, is_folder
from cssl_cli.host.paths import is_override, user_path

if TYPE_CHECKING:
    from cssl_cli.recipe import Recipe
    from cssl_cli.recipe.searched import SearchedField
    from cssl_cli.report.compare.catalogue import Column
    from cssl_cli.sweep.request import SweepRequest

PretrainAction = Literal["train", "restart", "plan", "profile"]
SweepAction = Literal["run", "plan", "report", "concentration"]
ClusterAction = Literal["submit", "wait", "cancel"]
LAUNCHERS = ("local", "slurm")
ETA = 2  # of successive halving
OF_RECIPES = "concentration"  # the section available for a recipe without a run
FEATURES = (".npz", ".safetensors")
# What features are also written as, so that the error is about the format.
NO_FEATURES = (".npy", ".pt", ".pth", ".pkl", ".pickle", ".h5", ".hdf5", ".csv", ".parquet", ".mat")


# ---------------------------------------------------------------------- pretrain
@dataclass(frozen=True)
class PretrainRequest:
    """What to do with a recipe, and where; `data_root` replaces its data.root, `track` names trackers."""

    recipe: Recipe
    action: PretrainAction
    out: Path
    device: str | None
    data_root: str | None
    track: tuple[str, ...] = ()


def pretrain_action(*, dry_run: bool, profile: bool, restart: bool) -> PretrainAction:
    """The action requested; `InputError` if options conflict."""
    if profile and (dry_run or restart):
        raise InputError(
            f"--profile trains nothing and cannot go with {'--dry-run' if dry_run else '--restart'}",
            where="--profile",
            remedy="Give one of them.",
        )
    return "plan" if dry_run else "profile" if profile else "restart" if restart else "train"


# ---------------------------------------------------------------------- analyze
@dataclass(frozen=True)
class Targets:
    """Runs to analyze, files of features, or a recipe by name or file; and overrides of the measurement settings."""

    runs: tuple[Path, ...]
    recipe: str | None
    overrides: tuple[str, ...]
    features: tuple[Path, ...] = ()

    @classmethod
    def sort(cls, arguments: Sequence[str]) -> Targets:
        """Sort the arguments into runs, features, recipe and overrides; `InputError` if they conflict."""
        overrides = tuple(argument for argument in arguments if is_override(argument) and not _is_there(argument))
        named = [argument for argument in arguments if argument not in overrides]
        if files := files_of_features(named):
            return cls((), None, overrides, files)
        runs = tuple(user_path(argument) for argument in named if _is_run(argument))
        recipes = [argument for argument in named if not _is_run(argument)]
        if not named:
            raise InputError("nothing is named to analyze", remedy="Give run directories, features, or a recipe.")
        if recipes and (runs or len(recipes) > 1):
            raise InputError(
                f"{' '.join(named)} are not all run directories",
                remedy="Give one or more runs, or a single recipe. Several recipes are compared by: "
                "cssl sweep NAME --concentration-only",
            )
        return cls(runs, recipes[0] if recipes else None, overrides)


@dataclass(frozen=True)
class AnalyzeRequest:
    """What to measure of the targets, how, and what to show.

    `changes` replace settings of the recipe's analyze block; `data_root` replaces the recipes' data.root. With three or
    more runs, the report shows which terms predict `accuracy`, with `correlations` all of them. `out` is where the
    results of features go.
    """

    targets: Targets
    changes: Mapping[str, Any]
    sections: tuple[str, ...]
    export: Path | None
    figures: bool
    html: bool
    out: Path | None
    again: bool
    accuracy: Column
    correlations: bool
    data_root: str | None
    device: str | None
    precision: str


def _is_run(target: str) -> bool:
    """Whether the target is a directory, or looks like one, so that the error is about a missing run."""
    path = user_path(target)
    return is_folder(path) or (len(path.parts) > 1 and path.suffix not in (".yaml", ".yml"))


def file_of_features(target: str) -> Path | None:
    """The path where an argument means a file of features, by its name; no folder has one."""
    path = user_path(target)
    return path if path.suffix.lower() in (*FEATURES, *NO_FEATURES) and not is_folder(path) else None


def files_of_features(named: Sequence[str]) -> tuple[Path, ...]:
    """The paths where arguments mean files of features; `InputError` if only some of them do."""
    files = [path for argument in named if (path := file_of_features(argument)) is not None]
    if files and len(files) < len(named):
        raise InputError(
            f"{' '.join(named)} cannot be measured together: not all are files of features",
            remedy="Give one or more files of features, or none.",
        )
    return tuple(dict.fromkeys(files))


def _is_there(target: str) -> bool:
    """Whether a file or folder of this name exists; `~blur` is not a user's home."""
    try:
        return exists(user_path(target))
    except InputError:
        return False


def require_run(targets: Targets, *, controls: bool, precision: str, export: Path | None) -> None:
    """`InputError` if an option needs a run, or exactly one, and the targets do not provide it."""
    if export is not None and len(targets.runs) != 1:
        raise InputError("--export writes the features of one run", remedy="Give one run directory.")
    if targets.recipe is None:
        return
    lacking = None
    if controls:
        lacking = "--controls", "a recipe without a run has no encoder to set beside the controls"
    elif precision != "float32":
        lacking = "--precision", "without a run, features are always computed in float32"
    if lacking is not None:
        where, what = lacking
        raise InputError(what, where=where, remedy="Leave it out, or give the directory of a finished run.")


def require_out(out: Path | None, of_features: bool) -> None:
    """`InputError` for --out without features from files."""
    if out is not None and not of_features:
        raise InputError(
            "--out keeps what is measured of a file of features; that of a run goes to its directory",
            where="--out",
            remedy="Leave it out.",
        )


def analyze_changes(*, images: int | None, views: int | None, classes: str | None, controls: bool) -> dict[str, Any]:
    """Settings that replace those of the recipe's analyze block."""
    changes: dict[str, Any] = {"num_images": images, "num_views": views}
    if controls:  # without the option, the run's recipe decides
        changes["controls"] = True
    if classes is not None:
        changes["classes"] = tuple(name.strip() for name in classes.split(",") if name.strip())
    return {name: value for name, value in changes.items() if value is not None}


def read_sections(names: Sequence[str], targets: Targets) -> tuple[str, ...]:
    """The sections to print; `InputError` for one that does not exist or does not apply to these targets."""
    from cssl_cli.report.analysis import SECTIONS

    for name in names:
        if name not in (*SECTIONS, "all"):
            raise unknown_name("section", name, (*SECTIONS, "all"), where="--section")
        if targets.recipe is not None and name not in (OF_RECIPES, "all"):
            raise InputError(
                f"a recipe without a run has no {name}, only a concentration",
                where="--section",
                remedy="Leave it out, or give the directory of a finished run.",
            )
        if len(targets.runs) > 1 or len(targets.features) > 1:
            kind = "run" if targets.runs else "file"
            raise InputError(
                f"sections are those of one {kind}; several {kind}s give one table",
                where="--section",
                remedy=f"Leave it out, or give one {'run directory' if targets.runs else 'file'}.",
            )
    return tuple(SECTIONS) if "all" in names else tuple(dict.fromkeys(names))


def read_accuracy(name: str, targets: Targets) -> Column:
    """The accuracy to predict; `InputError` if there is nothing to predict it from."""
    from cssl_cli.report.analysis import MIN_RUNS
    from cssl_cli.report.compare.catalogue import LINEAR, accuracy_named

    accuracy = accuracy_named(name)
    if accuracy != LINEAR and len(targets.runs) < MIN_RUNS:
        raise InputError(
            f"rank correlations with the {accuracy.label} take {MIN_RUNS} runs",
            where="--accuracy",
            remedy="Leave it out, or give more run directories.",
        )
    return accuracy


# ---------------------------------------------------------------------- rank
def read_candidates(arguments: Sequence[str]) -> list[tuple[str, Recipe]]:
    """The rows of sweeps, and single recipes, each by name; overrides among the arguments change them all.

    Of each row the recipe of its first seed. Those of one name with the same augmentations and data are one candidate;
    with other data, several: what a ranking takes of the data is known once they are loaded. `InputError` where two of
    different augmentations have one name.
    """
    from cssl_cli.recipe import load_recipe
    from cssl_cli.recipe.files import find, follow
    from cssl_cli.sweep.sweep import load_sweep

    overrides = [argument for argument in arguments if is_override(argument) and not _is_there(argument)]
    named = [argument for argument in arguments if argument not in overrides]
    if not named:
        raise InputError("nothing is named to rank", remedy="Give a sweep, or recipes.")
    found: dict[str, list[Recipe]] = {}
    for name in named:
        if follow(find(name, None)).kind == "recipe":
            rows = {(recipe := load_recipe(name, overrides)).name: recipe}
        else:
            rows = {}
            for member in load_sweep(name, overrides).members:
                rows.setdefault(member.row, member.recipe)
        for row, recipe in rows.items():
            known = found.setdefault(row, [])
            if known and known[0].augment != recipe.augment:
                raise InputError(
                    f"two of the candidates are called {row} and have different augmentations",
                    where=name,
                    remedy="Rename one of them.",
                )
            if recipe.data not in [one.data for one in known]:
                known.append(recipe)
    return [(row, recipe) for row, recipes in found.items() for recipe in recipes]


@dataclass(frozen=True)
class SearchRequest:
    """A recipe, as its arguments name it, and the fields of its augmentation over which to climb the share."""

    arguments: tuple[str, ...]
    recipe: Recipe
    fields: tuple[SearchedField, ...]


def read_search(arguments: Sequence[str], fields: str, *, labels: int | None) -> SearchRequest:
    """What to search, from the arguments and --optimise; `InputError` if they are not one recipe and its fields."""
    from cssl_cli.recipe import load_recipe
    from cssl_cli.recipe.files import find, follow
    from cssl_cli.recipe.searched import read_searched

    overrides = [argument for argument in arguments if is_override(argument) and not _is_there(argument)]
    named = [argument for argument in arguments if argument not in overrides]
    kinds = [follow(find(name, None)).kind for name in named]
    if kinds != ["recipe"]:
        given = (
            "none is named" if not named else f"{' '.join(named)} {'is a sweep' if len(named) == 1 else 'are several'}"
        )
        raise InputError(f"takes one recipe, and {given}", where="--optimise", remedy="Name a single recipe.")
    if labels is not None:
        raise InputError(
            "a climb would fit the few images whose labels it uses",
            where="--labels",
            remedy="Leave it out with --optimise.",
        )
    recipe = load_recipe(named[0], overrides)
    names = [name for part in fields.split(",") if (name := part.strip())]
    return SearchRequest((named[0], *overrides), recipe, read_searched(recipe, names))


# ---------------------------------------------------------------------- sweep
@dataclass(frozen=True)
class SweepTable:
    """How to show the table of results: the `accuracy` to predict, the row `versus` to compare with, the sort order.

    `order` is the quantity to sort rows by (`sorting.sort_rows`); None keeps the order of the sweep. `every`: print all
    rank correlations.
    """

    accuracy: Column
    versus: str | None
    order: str | None
    every: bool


def sweep_action(
    *,
    concentration_only: bool,
    report: bool,
    dry_run: bool,
    runs_members: bool,
    shows_table: bool,
    halves: bool = False,
) -> SweepAction:
    """The action requested; `InputError` if options conflict."""
    if halves and (concentration_only or report):
        raise InputError("--halve is for running", where="--halve", remedy="Leave it out.")
    if sum((concentration_only, report, dry_run)) > 1 or (runs_members and (concentration_only or report)):
        raise InputError(
            "--concentration-only, --report and --dry-run exclude one another, and --budget, --jobs, --retry and "
            "--track are for running",
            remedy="Give one of them.",
        )
    if shows_table and (concentration_only or dry_run):
        raise InputError(
            "--versus, --sort and --correlations are for the table of results, which --concentration-only and "
            "--dry-run do not print",
            remedy="Leave them out.",
        )
    return "concentration" if concentration_only else "report" if report else "plan" if dry_run else "run"


def cluster_action(
    launcher: str, *, wait: bool, cancel: bool, action: SweepAction, of_one_machine: Mapping[str, bool]
) -> ClusterAction | None:
    """What to do with the jobs of a sweep on a cluster; None on this machine; `InputError` if options conflict.

    of_one_machine: which of the options that only make sense on one machine are given.
    """
    if launcher not in LAUNCHERS:
        raise unknown_name("launcher", launcher, LAUNCHERS, where="--launcher")
    if (wait or cancel) and (launcher == "local" or action != "run" or (wait and cancel)):
        raise InputError(
            "--wait and --cancel are for the jobs of --launcher slurm, without one another, --dry-run or --report",
            where="--wait" if wait else "--cancel",
            remedy="Give --launcher slurm with one of them, or leave it out.",
        )
    if launcher == "local":
        return None
    given = [option for option, is_given in of_one_machine.items() if is_given]
    if given:
        raise InputError(
            f"{given[0]} is for a sweep on one machine",
            where="--launcher slurm",
            remedy="Leave it out; launcher.time, launcher.at_once and launcher.pack limit what jobs take.",
        )
    return "wait" if wait else "cancel" if cancel else "submit"


def read_eta(*, halve: bool, eta: int | None, shard: str | None) -> int | None:
    """How many times fewer rows each rung of successive halving leaves; None without; `InputError` for a conflict."""
    if not halve and eta is not None:
        raise InputError("--eta is for --halve", where="--eta", remedy="Add --halve, or leave it out.")
    if halve and shard is not None:
        raise InputError(
            "--halve compares all rows, and a shard has some of the runs",
            where="--halve",
            remedy="Run it on one machine, with --jobs N.",
        )
    return (eta or ETA) if halve else None


def read_table(
    request: SweepRequest, *, accuracy: str, versus: str | None, sort: str | None, every: bool
) -> SweepTable:
    """How to show the table; `InputError` for an unknown row or quantity."""
    from cssl_cli.report.compare.catalogue import accuracy_named
    from cssl_cli.report.compare.sorting import require_order
    from cssl_cli.report.compare.versus import require_row

    predicted = accuracy_named(accuracy)
    if versus is not None:
        require_row(versus, [member.row for member in request.sweep.members])
    if sort is not None:
        require_order(sort)
    return SweepTable(predicted, versus, sort, every)
