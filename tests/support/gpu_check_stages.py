"""Stages for the tests of benchmarks/gpu_check.py: some do what a stage should not."""

from __future__ import annotations

import os
import signal
import time

from gpu_findings import Findings, Setting


def right(findings: Findings, setting: Setting) -> None:
    findings.check("it is right", True)
    findings.note(f"on {setting.device}")
    print("said aloud")


def wrong(findings: Findings, setting: Setting) -> None:
    findings.check("it is right", False, "5, not 4")


def raises(findings: Findings, setting: Setting) -> None:
    findings.number("before the error, s", 1.5)
    raise ValueError("no such kernel")


def dies(findings: Findings, setting: Setting) -> None:
    findings.number("before the end, s", 2.5)
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(findings: Findings, setting: Setting) -> None:
    time.sleep(600)
