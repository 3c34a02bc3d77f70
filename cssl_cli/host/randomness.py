"""Random streams: one explicit generator for each purpose, all derived from the recipe's seed.

No function of the package draws from torch's global generators. Networks of libraries do, for their initial weights and
in dropout: then the generators are seeded from a stream first (nn/encoders/library.py, train/loop.py). A stream lives
on the CPU, whatever the device of the run, so that the numbers drawn are the same on every machine.
"""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator that belongs to (`seed`, `purpose`); different purposes give unrelated sequences."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    generator = torch.Generator()
    # Only the low 32 bits of a seed reach torch's CPU generator.
    return generator.manual_seed(int.from_bytes(digest[:4], "little"))
