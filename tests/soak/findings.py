"""What a case comes to: counts of what happened, and the faults that were found."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Fault:
    """Something that must not happen.

    kind: a word for the table (traceback, silent, hang, lost, ...). signature: what faults of one cause share. files:
    the input that brings it about, by name.
    """

    kind: str
    signature: str
    detail: str
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(map(len, self.files.values()))


@dataclass
class Outcome:
    """Of one case: how often each thing happened, and the faults."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        faults = [
            [fault.kind, fault.signature, fault.detail, {name: data.hex() for name, data in fault.files.items()}]
            for fault in self.faults
        ]
        return {"counts": self.counts, "faults": faults}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Outcome:
        faults = [
            Fault(kind, signature, detail, {name: bytes.fromhex(data) for name, data in files.items()})
            for kind, signature, detail, files in content["faults"]
        ]
        return cls(Counter(content["counts"]), faults)


def signature_of(error: BaseException) -> str:
    """The type of an error and the innermost line of the product that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "cssl_cli" in frame.filename] or frames
    place = f" at {Path(ours[-1].filename).name}:{ours[-1].name}" if ours else ""
    return f"{type(error).__name__}{place}"


@dataclass
class _Kept:
    count: int
    case: int
    fault: Fault


class Tally:
    """The sum over the cases of a part; keeps the smallest input of each kind of fault in a folder."""

    def __init__(self, part: str, seed: int, folder: Path) -> None:
        self.part, self.seed, self.folder = part, seed, folder
        self.cases = 0
        self.seconds = 0.0
        self.counts: Counter[str] = Counter()
        self.kept: dict[tuple[str, str], _Kept] = {}

    def add(self, case: int, outcome: Outcome) -> None:
        self.cases += 1
        self.counts.update(outcome.counts)
        for fault in outcome.faults:
            key = (fault.kind, fault.signature)
            known = self.kept.get(key)
            if known is None:
                self.kept[key] = _Kept(1, case, fault)
            else:
                known.count += 1
                if fault.size < known.fault.size:
                    known.case, known.fault = case, fault

    @property
    def num_faults(self) -> int:
        return sum(kept.count for kept in self.kept.values())

    def worst(self) -> list[tuple[tuple[str, str], _Kept]]:
        """The kinds of faults, the most frequent first."""
        return sorted(self.kept.items(), key=lambda item: -item[1].count)

    def save(self) -> None:
        """Write what brings about each kind of fault, and how to run it again."""
        for (kind, signature), kept in self.kept.items():
            digest = hashlib.sha256(signature.encode()).hexdigest()[:8]
            folder = self.folder / self.part / f"{kind.replace(' ', '-')}-{digest}"
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in kept.fault.files.items():
                (folder / name).write_bytes(data)
            content = {
                "kind": kind,
                "signature": signature,
                "times": kept.count,
                "again": f"python -m tests.soak --seed {self.seed} --only {self.part} --case {kept.case}",
                "detail": kept.fault.detail,
            }
            (folder / "fault.json").write_text(json.dumps(content, indent=2) + "\n")

    def to_json(self) -> dict[str, Any]:
        faults = [
            {"kind": kind, "signature": signature, "times": kept.count, "case": kept.case}
            for (kind, signature), kept in self.worst()
        ]
        return {"cases": self.cases, "seconds": self.seconds, "counts": self.counts, "faults": faults}
