"""How far the members of a sweep are, by their run directories."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cssl_cli.errors import CsslError, escaped
from cssl_cli.host.sealed_folder import SealedFolder
from cssl_cli.report.watch.progress import QUIET, Follower, RunProgress
from cssl_cli.runs.run_dir import ANALYSIS, RunDir, find_runs
from cssl_cli.sweep.run import member_path
from cssl_cli.sweep.stored import NAME, load_stored_sweep


@dataclass(frozen=True)
class MemberState:
    """A member: its name, its run, and the word for where it stands.

    `measuring` is a trained run without an analysis yet, `quiet` one that has written nothing for long, `stopped` one
    that successive halving stopped.
    """

    name: str
    run: RunProgress
    state: str

    @property
    def ended(self) -> bool:
        """Whether it goes on no more. An interrupted one may: the members of a rung wait for the last of them."""
        if self.state == "interrupted":
            return self.run.age > QUIET
        return self.state in ("finished", "failed", "stopped")

    def content(self) -> dict[str, Any]:
        return {"member": self.name, **self.run.content(), "state": self.state}


@dataclass(frozen=True)
class SweepProgress:
    """A sweep: its members in order. problems: sentences on what cannot be read."""

    path: Path
    members: tuple[MemberState, ...]
    problems: tuple[str, ...]

    @property
    def ended(self) -> bool:
        """Whether no member is at work or has yet to begin."""
        return bool(self.members) and all(one.ended for one in self.members)

    def content(self) -> dict[str, Any]:
        return {
            "sweep": str(self.path),
            "ended": self.ended,
            "members": [member.content() for member in self.members],
            "problems": list(self.problems),
        }


class SweepFollower:
    """Follows the runs in a sweep's folder: those that sweep.json names, or those that are there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.followers: dict[Path, Follower] = {}
        self.stored: tuple[Any, dict[str, Path], tuple[str, ...]] = (..., {}, ())

    def look(self) -> SweepProgress:
        """Where all members stand now."""
        planned, problems = self._planned()
        runs = planned or {path.name: path for path in find_runs(self.path)}
        members = []
        for name, path in runs.items():
            progress = self.followers.setdefault(path, Follower(path)).look()
            members.append(MemberState(name, progress, _state(progress)))
        damaged = [f"{escaped(one.name)}: {problem}" for one in members for problem in one.run.problems]
        return SweepProgress(self.path, tuple(members), (*problems, *damaged))

    def _planned(self) -> tuple[dict[str, Path], tuple[str, ...]]:
        """The members by sweep.json, which is read again when it changes; empty if there is none to be used."""
        file = SealedFolder(self.path).file(NAME)
        try:
            date = file.stat().st_mtime_ns
        except OSError:
            return {}, ()
        if date != self.stored[0]:
            try:
                sweep = load_stored_sweep(self.path)
                # The folder may have been moved or renamed since.
                paths = {one.name: self.path / member_path(sweep, one, self.path).name for one in sweep.members}
                self.stored = (date, paths, ())
            except CsslError as error:
                self.stored = (date, {}, (f"{NAME}: {error.what}",))
        return self.stored[1:]


def is_sweep(path: Path) -> bool:
    """Whether a folder is that of a sweep, and no run's."""
    return (path / NAME).exists() or bool(find_runs(path))


def _state(run: RunProgress) -> str:
    if run.quiet:
        return "quiet"
    if run.stopped is not None:
        return "stopped"
    unmeasured = run.state == "finished" and not RunDir(run.path).file(ANALYSIS).exists()
    return "measuring" if unmeasured else run.state
