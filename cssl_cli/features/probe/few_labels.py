"""Few labelled images: stratified, nested and seeded choices of them, and what classifiers reach with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cssl_cli.features.probe.scoring import over_draws

FOLDS = 5
MOST_IN_FOLDS = 1000  # labelled images; of more, the share held out of a single split is enough to choose by

Scores = Mapping[str, Any]


class Level(NamedTuple):
    """How few: a share of each class (`label_fraction`) or so many images of each (`shots`)."""

    of: str
    value: float

    def count(self, size: int) -> int:
        """Labelled images of a class of `size` images: at least one and at most all."""
        wanted = round(self.value * size) if self.of == "label_fraction" else int(self.value)
        return min(max(1, wanted), size)


@dataclass(frozen=True)
class FewLabels:
    """The levels, the number of draws, and `stream_of`, the random generator of a purpose.

    `advance` is called with 1 after each fit of a classifier, of which there are `num_fits`.
    The choices depend on labels, draw and generators alone: every encoder gets the same. Those of one draw are nested:
    a level takes all that a smaller one takes.
    """

    levels: tuple[Level, ...]
    draws: int
    stream_of: Callable[[str], torch.Generator]
    advance: Callable[[int], None] = lambda _: None

    @classmethod
    def of(cls, settings: Mapping[str, Any], stream_of: Callable[[str], torch.Generator]) -> FewLabels:
        """As the recipe's probe block asks for."""
        asked = ((name, settings.get(name) or ()) for name in ("label_fraction", "shots"))
        levels = tuple(Level(name, value) for name, values in asked for value in values)
        return cls(levels, settings.get("draws", 5), stream_of)

    def num_fits(self, labels: Tensor) -> int:
        """Fits of each classifier on images of `labels` (N,), but for those on all of them."""
        return self.draws * sum(len(self.rows(labels, level, 0)) < len(labels) for level in self.levels)

    def rows(self, labels: Tensor, level: Level, draw: int) -> Tensor:
        """The places, ascending, of a draw's labelled images among images of `labels` (N,)."""
        generator = self.stream_of(f"probe labels {draw}")
        chosen = []
        for label in labels.unique():
            members = (labels == label).nonzero().squeeze(1)
            order = torch.randperm(len(members), generator=generator)
            chosen.append(members[order[: level.count(len(members))]])
        return torch.cat(chosen).sort().values

    def scores(
        self, labels: Tensor, whole: Scores, fit: Callable[[Tensor, torch.Generator], Scores], facts: Sequence[str] = ()
    ) -> dict[str, Any]:
        """`few_labels`: an entry for each level; an empty mapping if there are none.

        `fit` gives the score with the images at some places; `whole` is that with all of them, and where a level takes
        all, that is its only one. An entry has the level, `labelled_images`, the `facts` of each draw's score as lists,
        and what `over_draws` says.
        """
        labels = labels.cpu()
        return (
            {"few_labels": [self._entry(labels, level, whole, fit, facts) for level in self.levels]}
            if self.levels
            else {}
        )

    def _entry(
        self,
        labels: Tensor,
        level: Level,
        whole: Scores,
        fit: Callable[[Tensor, torch.Generator], Scores],
        facts: Sequence[str],
    ) -> dict[str, Any]:
        labelled = len(self.rows(labels, level, 0))
        if labelled == len(labels):
            found = [whole]
        else:
            found = []
            for draw in range(self.draws):
                rows = self.rows(labels, level, draw)
                found.append(fit(rows, self.stream_of(f"probe {level.of} {level.value} {draw}")))
                self.advance(1)
        of_draws = {fact: [one[fact] for one in found] for fact in facts}
        return {level.of: level.value, "labelled_images": labelled, **over_draws(found), **of_draws}
