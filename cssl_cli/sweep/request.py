"""What to do with a sweep, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cssl_cli.errors import InputError
from cssl_cli.recipe.recipe import place_of
from cssl_cli.sweep.sweep import Member, Sweep


@dataclass(frozen=True)
class SweepRequest:
    """The members to work on, and how; the run directories go under `out` / the sweep's name.

    selected: the selected members, None for all. data_root: replaces the recipes' data.root. seconds: start no further
    member after this time. jobs: how many members run at a time, each in its own process; None runs them one after
    another in this process. retries: how often to retry a failed member, in its own process. track: the trackers that
    mirror the runs. eta: successive halving, in which one row in `eta` goes on from a rung (halving.py); None: all rows
    train to their end.
    """

    sweep: Sweep
    out: Path
    selected: tuple[Member, ...] | None = None
    device: str | None = None
    data_root: str | None = None
    seconds: float | None = None
    jobs: int | None = None
    retries: int = 0
    eta: int | None = None
    track: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[Member, ...]:
        """The selected members."""
        return self.sweep.members if self.selected is None else self.selected

    @property
    def home(self) -> Path:
        """The folder that holds the run directories."""
        return self.out / self.sweep.name


def require_one_root(request: SweepRequest) -> None:
    """`InputError` if `data_root` is given for members whose images lie in several folders, or in none."""
    fields = [(member.recipe.data, place_of(type(member.recipe.data).model_fields)) for member in request.members]
    roots = {getattr(data, field) if field else ... for data, field in fields}
    if request.data_root is not None and (len(roots) > 1 or ... in roots):
        raise InputError(
            "the images of these members lie in no folder"
            if roots == {...}
            else "the images of these members do not all lie in one folder",
            where="--data-root",
            remedy="Leave it out, or choose members with --only.",
        )
