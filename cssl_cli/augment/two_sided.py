"""Views of two kinds: the first view of a training pair is drawn from one augmentation, the second from another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cssl_cli.augment.crop import Crop
from cssl_cli.augment.op import Operation
from cssl_cli.augment.pipeline import OPERATIONS, Augmentation
from cssl_cli.errors import InputError

Operations = Mapping[str, Operation]


class TwoSided(Augmentation):
    """The even mixture of two augmentations, which a last coordinate of theta chooses between; from 1/2 on, the second.

    As an augmentation, its views are of either kind with probability 1/2: on these the terms of the theory, which know
    one set A(x) of views of an image, are measured. A training pair has one view of each kind (`draw_pairs`). Both are
    made in one pass, as what they differ in are numbers of single images.
    """

    def __init__(self, first: Operations, second: Operations, *, image_size: int, store_size: int | None) -> None:
        """Raises InputError where an operation differs in what it is to all images of a pass."""
        names = [name for name in OPERATIONS if name in first or name in second]
        both = [_alike(name, first.get(name), second.get(name)) for name in names]
        sides = [{name: pair[side] for name, pair in zip(names, both, strict=True)} for side in (0, 1)]
        super().__init__(sides[0], image_size=image_size, store_size=store_size)
        self.sides = tuple(Augmentation(side, image_size=image_size, store_size=store_size) for side in sides)
        self.num_parameters += 1
        self.continuous = tuple(sorted({column for side in self.sides for column in side.continuous}))
        discrete = {name for side in self.sides for name in side.discrete}
        self.discrete = (*(name for name in names if name in discrete), "view_2")

    def draw_pairs(self, num_pairs: int, generator: torch.Generator) -> Tensor:
        both = super().draw_pairs(num_pairs, generator).chunk(2)
        return torch.cat([self.of_side(theta, side) for side, theta in enumerate(both)])

    def of_side(self, theta: Tensor, side: int) -> Tensor:
        return torch.cat([theta[:, :-1], torch.full_like(theta[:, -1:], (0.25, 0.75)[side])], dim=1)

    def parameters(self, theta: Tensor) -> dict[str, dict[str, Tensor]]:
        of_second = _of_second(theta)
        first, second = (side.parameters(theta) for side in self.sides)
        return {
            name: {key: torch.where(of_second, second[name][key], value) for key, value in values.items()}
            for name, values in first.items()
        }

    def states(self, theta: Tensor) -> Tensor:
        return torch.cat([super().states(theta), _of_second(theta).long().unsqueeze(1)], dim=1)

    def coordinates(self, theta: Tensor) -> Tensor:
        first, second = (side.coordinates(theta[:, :-1]) for side in self.sides)
        return torch.where(_of_second(theta).unsqueeze(1), second, first)


def _of_second(theta: Tensor) -> Tensor:
    """Which rows of theta (N, P) make a view of the second kind, (N,)."""
    return theta[:, -1] >= 0.5


def _alike(name: str, first: Operation | None, second: Operation | None) -> tuple[Operation, Operation]:
    """The operation for either kind of view; where it is not applied, one that leaves every image as it is."""
    known = first or second
    assert known is not None
    nothing: dict[str, Any] = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)} if isinstance(known, Crop) else {"p": 0.0}
    first, second = (replace(known, **nothing) if one is None else one for one in (first, second))
    for field in known.of_all_images:
        if getattr(first, field) != getattr(second, field):
            of_first, of_second = (getattr(one, field) for one in (first, second))
            raise InputError(
                f"is {_written(of_second)}, and {_written(of_first)} for the first view: it can only be the same",
                where=f"augment.view_2.{name}.{field}",
                remedy="Both views are made in one pass; give both the same, or leave it out here.",
            )
    return first, second


def _written(value: float | None) -> str:
    return "null" if value is None else str(value)
