"""The findings of a stage of gpu_check.py, on disk from its first number on, and the process that runs the stage.

This module needs only Python: what a stage needs is imported in its own process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RAISED = 1  # exit code of a stage that raised


@dataclass(frozen=True)
class Setting:
    """The setting of a stage.

    device: as of `cssl --device`. small: the smallest sizes, to try the script. images: CIFAR-10 or other images, as a
    folder or an archive; None: drawn ones. folder: for the stage's files. ends_at: when the stage is ended, on
    `time.monotonic`'s clock.
    """

    device: str
    small: bool
    images: Path | None
    folder: Path
    ends_at: float

    @property
    def seconds_left(self) -> float:
        return self.ends_at - time.monotonic()


class Findings:
    """Checks, numbers and sentences of a stage; written to `path` after each, so that a stage cut short leaves them.

    checks: passed or not, with what was observed. numbers: by a name that ends with the unit. speeds: a table row for
    each way to train. notes: sentences.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {"checks": {}, "numbers": {}, "speeds": {}, "notes": [], "error": None}
        self._write()

    def check(self, name: str, passed: bool, seen: str = "") -> None:
        self.content["checks"][name] = {"passed": bool(passed), "seen": seen}
        self._write()

    def at_most(self, name: str, value: float, limit: float) -> None:
        """Checks that a number is defined and not above its limit."""
        self.check(name, value <= limit, f"{value:.3g}, at most {limit:g}")

    def number(self, name: str, value: float) -> None:
        self.content["numbers"][name] = value
        self._write()

    def speed(self, case: str, columns: Mapping[str, float | None]) -> None:
        known = self.content["speeds"].setdefault(case, {})
        known.update({name: value for name, value in columns.items() if value is not None})
        self._write()

    def note(self, sentence: str) -> None:
        self.content["notes"].append(sentence)
        self._write()

    def failed(self, error: str) -> None:
        self.content["error"] = error
        self._write()

    def _write(self) -> None:
        write_json(self.path, self.content)


def write_json(path: Path, content: object) -> None:
    """Writes the file whole or not at all."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)


def carry_out(function: str, setting: Setting, path: Path, log: Path) -> None:
    """Runs the stage `MODULE:FUNCTION` in its own process; what it prints goes to `log`."""
    os.setsid()  # so that it can be ended with all its child processes
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    findings = Findings(path)
    module, _, name = function.partition(":")
    try:
        getattr(importlib.import_module(module), name)(findings, setting)
    except Exception as error:
        findings.failed(f"{type(error).__name__}: {error}")
        traceback.print_exc()
        sys.exit(RAISED)
    finally:
        spent = os.times()
        print(f"processor time: {spent.user + spent.system:.1f} s, of its processes {spent.children_user:.1f} s")
