"""The cache of the Hugging Face hub, as its library lays it out."""

from __future__ import annotations

import hashlib
from pathlib import Path


def in_hub_cache(cache: Path, repository: str, name: str, content: bytes, *, revision: str = "main") -> None:
    """Put a file of a model's repository there: its content by digest, and a commit that links to it."""
    digest = hashlib.sha256(content).hexdigest()
    commit = hashlib.sha1(repository.encode()).hexdigest()
    folder = cache / f"models--{repository.replace('/', '--')}"
    for part in ("blobs", "refs", f"snapshots/{commit}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "blobs" / digest).write_bytes(content)
    (folder / "refs" / revision).write_text(commit)
    (folder / "snapshots" / commit / name).symlink_to(Path("..", "..", "blobs", digest))
