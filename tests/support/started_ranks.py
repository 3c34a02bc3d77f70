"""Ranks as torchrun starts them, without its agent: what it sets for each, and a tiny run for them to train."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cssl_cli.runs.run_dir import METRICS
from tests.support.forked_process import ForkedProcess

SILENCE = 3.0
_RECIPE = """
name: ranks
seed: 3
data: {name: shapes, num_train: 96, num_test: 40, size: 8}
augment: {crop: {scale: [0.4, 1.0]}, jitter: {p: 0.8, strength: 0.5}}
encoder: {name: small, width: 2}
method: {name: barlow_twins, projector: [16, 8]}
optim: {name: lars, lr: 0.2}
train: {epochs: EPOCHS, batch_size: 24, precision: float32}
probe: {knn_k: 10, center_views: 2, penalties: [0.1]}
analyze: {num_images: 40, num_views: 4, bootstrap: 20, refine_pairs: 20}
"""


def recipe_text(epochs: int) -> str:
    """Four steps an epoch, of batches that 2, 3 and 4 ranks can share."""
    return _RECIPE.replace("EPOCHS", str(epochs))


def environments(size: int, silence: float = SILENCE) -> list[dict[str, str]]:
    """What each of `size` ranks on this machine finds in its environment; of one, nothing.

    silence: seconds without a word of another rank after which a rank is given up.
    """
    if size == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"GLOO_SOCKET_IFNAME": "lo", "CSSL_RANK_TIMEOUT": str(silence)}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


class Started:
    """`cssl pretrain`, or the command `of`, as `size` ranks in `folder`: as torchrun starts them, without its agent."""

    def __init__(
        self, folder: Path, size: int, epochs: int, *words: object, of: Sequence[object] | None = None, **settings: Any
    ) -> None:
        self.folder, self.began = folder, time.monotonic()
        recipe = folder / "recipe.yaml"
        recipe.write_text(recipe_text(epochs))
        self.ranks = [
            ForkedProcess(
                folder,
                *(of or ("pretrain", recipe, *words)),
                environment=environment,
                **{name: value for name, (of_rank, value) in settings.items() if of_rank == rank},
            )
            for rank, environment in enumerate(environments(size))
        ]

    def wait_for(self, num_epochs: int) -> None:
        """Until so many epochs are on disk."""
        while self._num_epochs() < num_epochs:
            assert self.ranks[0].poll() is None, self.ranks[0].communicate()
            time.sleep(0.01)

    def wait_for_file(self, name: str) -> None:
        """Until a rank has made this file where they run."""
        while not (self.folder / name).exists():
            assert None in [one.poll() for one in self.ranks], [one.communicate() for one in self.ranks]
            time.sleep(0.01)

    def _num_epochs(self) -> int:
        found = list((self.folder / "runs").glob(f"*/{METRICS}"))
        return len(found[0].read_text().splitlines()) if found else 0

    def end(self, *, of: Sequence[int] | None = None) -> list[tuple[int | None, str, str]]:
        """Exit code, stdout and stderr of these ranks, by default of all."""
        chosen = [self.ranks[rank] for rank in (range(len(self.ranks)) if of is None else of)]
        texts = [one.communicate(timeout=120) for one in chosen]
        return [(one.returncode, *text) for one, text in zip(chosen, texts, strict=True)]

    def close(self) -> None:
        for one in self.ranks:
            if one.poll() is None:
                one.kill()


Start = Callable[..., Started]
