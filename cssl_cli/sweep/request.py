"""What of a sweep is to be done, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cssl_cli.errors import InputError
from cssl_cli.sweep.sweep import Member, Sweep


@dataclass(frozen=True)
class SweepRequest:
    """The members to work on, and how; the run directories go under `out` / the sweep's name.

    selected: the members that are meant, None for all. data_root: where the images lie, in place of the recipes'
    data.root. seconds: after so long no further member is started. jobs: so many members at a time, each in a process
    of its own; None for one after another in this process. retries: how often a member that failed is tried again, in
    processes of their own.
    """

    sweep: Sweep
    out: Path
    selected: tuple[Member, ...] | None = None
    device: str | None = None
    data_root: str | None = None
    seconds: float | None = None
    jobs: int | None = None
    retries: int = 0

    @property
    def members(self) -> tuple[Member, ...]:
        """The members that are meant."""
        return self.sweep.members if self.selected is None else self.selected

    @property
    def home(self) -> Path:
        """The folder of the run directories."""
        return self.out / self.sweep.name


def require_one_root(request: SweepRequest) -> None:
    """`InputError` where one folder is named for members whose images lie in several, or in none."""
    roots = {getattr(member.recipe.data, "root", ...) for member in request.members}
    if request.data_root is not None and (len(roots) > 1 or ... in roots):
        raise InputError(
            "the images of these members lie in no folder"
            if roots == {...}
            else "the images of these members do not all lie in one folder",
            where="--data-root",
            remedy="Leave it out, or choose members with --only.",
        )
