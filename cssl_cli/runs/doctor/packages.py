"""Versions: Python, the packages that cssl needs, and the optional ones."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata

import cssl_cli
from cssl_cli.runs.doctor.findings import Finding

# As in pyproject.toml, which an installed package does not have at hand; a test compares.
PYTHON = "3.11"
NEEDED = {
    "annotated-types": "0.6",
    "torch": "2.8",
    "torchvision": "0.23",
    "numpy": "1.26",
    "scipy": "1.14",
    "pillow": "10.1",
    "matplotlib": "3.8",
    "safetensors": "0.4.3",
    "pydantic": "2.8",
    "pyyaml": "6.0",
    "rich": "13.7",
    "typer": "0.20",
    "jinja2": "3.1",
    "uniplot": "0.23",
}
OPTIONAL = {"datasets": "5.2", "timm": "1.0"}
EXTRAS = {"datasets": "huggingface", "timm": "timm"}


def versions() -> Iterator[Finding]:
    """The versions, and which of them are too old."""
    found = {name: installed(name) for name in (*NEEDED, *OPTIONAL)}
    python = platform.python_version()
    shown = ", ".join(f"{name} {version}" for name, version in found.items() if version and name in ("torch", "numpy"))
    facts = {"cssl": cssl_cli.__version__, "python": python, "packages": found}
    old = sys.version_info < tuple(numbers(PYTHON))
    yield Finding(
        "versions",
        f"cssl {cssl_cli.__version__}, Python {python}{', ' if shown else ''}{shown}",
        "failed" if old else "ok",
        f"Install Python {PYTHON} or newer." if old else None,
        facts,
    )
    for name, least in NEEDED.items():
        yield from _wanted(name, found[name], least)
    for name, least in OPTIONAL.items():
        if found[name] is None:
            yield Finding(name, f"is not installed, and optional: pip install 'cssl-cli[{EXTRAS[name]}]'")
        else:
            yield from _wanted(name, found[name], least)


def torchvision_fits() -> Iterator[Finding]:
    """Whether torchvision was built for this torch, by what it says itself."""
    torch, torchvision = installed("torch"), installed("torchvision")
    if torch is None or torchvision is None:
        return
    wants = [found[1] for line in metadata.requires("torchvision") or () if (found := _pinned(line))]
    if wants and numbers(wants[0]) != numbers(torch):
        yield Finding(
            "torchvision",
            f"{torchvision} was built for torch {wants[0]}, and torch is {torch}",
            "failed",
            f"Install both together: pip install --upgrade torch torchvision; or pip install torch=={wants[0]}.",
        )


def _pinned(line: str) -> re.Match[str] | None:
    return re.match(r"torch *\(?== *([\w.+]+)", line)


def _wanted(name: str, version: str | None, least: str) -> Iterator[Finding]:
    if version is None:
        yield Finding(name, "is not installed", "failed", f"Install it: pip install '{name}>={least}'.")
    elif numbers(version) < numbers(least):
        yield Finding(
            name, f"is {version}, older than {least}", "failed", f"Install it: pip install --upgrade '{name}>={least}'."
        )


def installed(name: str) -> str | None:
    """The version of an installed package; None where there is none, or one that does not say."""
    try:
        return metadata.version(name) or None
    except metadata.PackageNotFoundError:
        return None


def numbers(version: str) -> list[int]:
    """The numbers that a version begins with: 2.9.1+cu128 is [2, 9, 1]; final zeros do not count."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    parts = [int(part) for part in found[0].split(".")] if found else []
    while parts and parts[-1] == 0:
        parts.pop()
    return parts
