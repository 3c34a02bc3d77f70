"""Tiny recipes, and the command line as a function and as a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TINY_RECIPE = """
name: tiny
seed: 3
data: {name: shapes, num_train: 256, num_test: 100, size: 16}
augment: {crop: {scale: [0.3, 1.0]}, flip: {p: 0.5}, jitter: {p: 0.8, strength: 0.5}, gray: {p: 0.2}, blur: {p: 0.5}}
encoder: {name: small, width: 4}
method: {name: simclr, temperature: 0.5, projector: [16, 8]}
optim: {name: sgd, lr: 0.05}
train: {epochs: 3, batch_size: 64}
probe: {knn_k: 10, center_views: 2, penalties: [0.1, 1.0]}
analyze: {num_images: 50, num_views: 4, epsilons: [0.2, 0.5], bootstrap: 20, refine_pairs: 0}
"""

# For tests of what surrounds the measurements: images of half the side, a quarter of the weights, four classes, so few
# images that they take no risk of a probe apart, no search.
QUICKLY_MEASURED = """
name: tiny
seed: 3
data: {name: shapes, num_train: 256, num_test: 100, size: 8}
augment: {crop: {scale: [0.3, 1.0]}, flip: {p: 0.5}, jitter: {p: 0.8, strength: 0.5}, gray: {p: 0.2}, blur: {p: 0.5}}
encoder: {name: small, width: 2}
method: {name: simclr, temperature: 0.5, projector: [16, 8]}
optim: {name: sgd, lr: 0.05}
train: {epochs: 3, batch_size: 64}
probe: {knn_k: 10, center_views: 2, penalties: [0.1]}
analyze: {num_images: 16, classes: [bar, cross, ring, square], num_views: 3, epsilons: [0.2, 0.5], deltas: [0.5, 1.0],
          bootstrap: 20, refine_pairs: 0, distances: [pixels, trained]}
"""

CommandLine = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "cssl_cli", *map(str, arguments)]


@dataclass
class Outcome:
    code: int
    stdout: str
    stderr: str


Invoke = Callable[..., Outcome]


def the_run(folder: Path) -> Path:
    (run,) = (folder / "runs").iterdir()
    return run
