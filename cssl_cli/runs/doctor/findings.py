"""What a check finds, and running checks so that one that fails costs only itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """What a check found, in a sentence without its name; facts are the numbers behind it.

    failed: commands need it, and it does not work. warning: they work, worse or slower than they could. Either has a
    remedy.
    """

    check: str
    says: str
    state: State = "ok"
    remedy: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


Check = Callable[[], Iterable[Finding]]


def examined(checks: Mapping[str, Check]) -> Iterator[Finding]:
    """What the checks find, in order; of one that raises, that it did."""
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # whatever it is, the other checks count
            yield broken(name, error)


def broken(name: str, error: BaseException) -> Finding:
    """That a check raised: of something that is not as it should be, or of us."""
    said = str(error).strip().partition("\n")[0]
    return Finding(
        name,
        f"could not be examined: {type(error).__name__}{': ' if said else ''}{said}",
        "warning",
        "If the commands that you need work, leave it; if not, this is why.",
    )
