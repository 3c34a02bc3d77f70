"""All randomness of a view is one point theta of the unit cube; an `Augmentation` is a function of image and theta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cssl_cli.augment import op
from cssl_cli.augment.blur import Blur
from cssl_cli.augment.crop import Crop
from cssl_cli.augment.cutout import Cutout
from cssl_cli.augment.fade import Fade
from cssl_cli.augment.flip import Flip
from cssl_cli.augment.gray import Gray
from cssl_cli.augment.jitter import Jitter
from cssl_cli.augment.op import Operation, per_image
from cssl_cli.augment.resize import as_floats, clean_views
from cssl_cli.augment.solarize import Solarize

# In order of application. Recipes read the names from here, and the settings from the files of these names.
OPERATIONS: dict[str, type[Operation]] = {
    "crop": Crop,
    "flip": Flip,
    "jitter": Jitter,
    "gray": Gray,
    "blur": Blur,
    "solarize": Solarize,
    "cutout": Cutout,
    "fade": Fade,
}


class Augmentation:
    """A sequence of operations on square images of one size, parametrised by the unit cube [0, 1)^P.

    Views have the side `image_size`; images are stored at `store_size`, at least as large. A crop takes its boxes from
    the stored images; without one the whole is resized. What follows works at `image_size`.

    The paper's A_theta with theta uniform on [0, 1]^n (Huang et al., arXiv 2111.00743). `draw` is the only source of
    randomness; `apply` is a pure function, so views can be replayed, laid out on a grid and optimised over. The view of
    an image does not depend on the rest of the batch.

    Attributes: `operations` by name in the order of application; `columns`, the slice of theta that belongs to each;
    `num_parameters`, P; `continuous`, the columns of theta that views vary with continuously; `discrete`, the names of
    the operations that only a coin decides, such as flip and gray.
    """

    def __init__(self, operations: Mapping[str, Operation], *, image_size: int, store_size: int | None = None) -> None:
        self.operations = dict(operations)
        self.image_size = image_size
        self.store_size = store_size or image_size
        self.columns: dict[str, slice] = {}
        self.num_parameters = 0
        for name, operation in self.operations.items():
            self.columns[name] = slice(self.num_parameters, self.num_parameters + operation.num_parameters)
            self.num_parameters += operation.num_parameters
        odds = {name: getattr(operation, "p", 1.0) for name, operation in self.operations.items()}
        varying = {name: one.continuous for name, one in self.operations.items() if odds[name] > 0}
        self.continuous = tuple(self.columns[name].start + place for name, own in varying.items() for place in own)
        self.discrete = tuple(name for name, own in varying.items() if not own and odds[name] < 1)

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """theta (num, P), uniform on [0, 1), float32, on the generator's device."""
        return torch.rand((num, self.num_parameters), generator=generator, device=generator.device)

    def draw_pairs(self, num_pairs: int, generator: torch.Generator) -> Tensor:
        """theta (2 num_pairs, P) of two views of each image, those of all first views before those of the second."""
        return self.draw(2 * num_pairs, generator)

    def of_side(self, theta: Tensor, side: int) -> Tensor:  # noqa: ARG002
        """theta (N, P) for first views (`side` 0) or second ones (1) of pairs; here both are alike."""
        return theta

    def parameters(self, theta: Tensor) -> dict[str, dict[str, Tensor]]:
        """Parameters of each operation for each image, by operation and name, each (N,), from theta (N, P)."""
        return {name: one.parameters(theta[:, self.columns[name]]) for name, one in self.operations.items()}

    def states(self, theta: Tensor) -> Tensor:
        """The discrete states of each view, whole numbers (N, S), from theta (N, P): coins and orders.

        Views with equal rows differ only in the `continuous` columns of theta.
        """
        found = []
        for name, parameters in self.parameters(theta).items():
            for key in self.operations[name].states:
                found.append(torch.where(parameters["applied"], parameters[key].long(), -1))
        return torch.stack(found, dim=1) if found else theta.new_zeros(len(theta), 0, dtype=torch.int64)

    def continuous_values(self, theta: Tensor) -> Tensor:
        """The `continuous` coordinates (N, n) from theta (N, P), each uniform on [0, 1) given the states of its view.

        The coordinate of a coin is rescaled to what the coin leaves of it (see `chance`); those of an operation that
        was not applied are 0.
        """
        return self.coordinates(theta)[:, list(self.continuous)]

    def coordinates(self, theta: Tensor) -> Tensor:
        """All coordinates (N, P) so; only the `continuous` ones mean something."""
        found = [theta.new_zeros(len(theta), 0)]
        for name, parameters in self.parameters(theta).items():
            operation, own = self.operations[name], theta[:, self.columns[name]].clone()
            if operation.coin is not None:
                applied = parameters["applied"]
                own[:, operation.coin] = op.chance(own[:, operation.coin], getattr(operation, "p", 1.0))[1]
                own = torch.where(applied.unsqueeze(1), own, 0)
            found.append(own)
        return torch.cat(found, dim=1)

    def clean(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to which nothing is done, at the side of views, float32 in [0, 1]."""
        return clean_views(images, self.image_size)

    def apply(self, images: Tensor, theta: Tensor) -> Tensor:
        """Views (N, C, H, W), float32 in [0, 1], of stored images (N, C, S, S), uint8 or floating point in [0, 1].

        Row i of theta (N, P), on the images' device, belongs to image i. Raises ValueError on shapes that do not fit.
        """
        if images.shape[-2:] != (self.store_size, self.store_size):
            raise ValueError(f"images of side {self.store_size} expected, got shape {tuple(images.shape)}")
        if theta.shape != (len(images), self.num_parameters):
            raise ValueError(f"theta of shape {(len(images), self.num_parameters)} expected, got {tuple(theta.shape)}")
        parameters = self.parameters(theta)
        blocks = op.blocks_of(images)
        if len(blocks) == 1:
            return self._apply_block(images, parameters)
        return torch.cat([self._apply_block(images[rows], _select(parameters, rows)) for rows in blocks])

    def _apply_block(self, images: Tensor, parameters: dict[str, dict[str, Tensor]]) -> Tensor:
        views = as_floats(images) if "crop" in self.operations else self.clean(images)
        for name, operation in self.operations.items():
            views = _apply_where_drawn(operation, views, parameters[name])
        return views


def _select(parameters: dict[str, dict[str, Tensor]], rows: slice) -> dict[str, dict[str, Tensor]]:
    return {name: {key: values[rows] for key, values in named.items()} for name, named in parameters.items()}


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(image − mean) / std per channel, for floating-point images (N, C, H, W) on the 0 … 1 scale."""
    # Channel by channel with plain numbers: a tensor of means would be a copy from host to device in every call.
    channels = [(images[:, c] - mean[c]).div_(std[c]) for c in range(images.shape[1])]
    return torch.stack(channels, dim=1)


def _apply_where_drawn(operation: Operation, images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """Transforms the images marked by the parameter `applied` (all without one); the others stay bit-identical."""
    applied = parameters.get("applied")
    if applied is None:
        return operation.apply(images, parameters)
    if op.on_cpu(images):  # only the chosen images are processed
        rows = applied.nonzero().squeeze(1)
        chosen = {name: values[rows] for name, values in parameters.items()}
        return images.index_copy_(0, rows, operation.apply(images.index_select(0, rows), chosen))
    # With weights of exactly 0 and 1 lerp returns its first or second argument unchanged, and is faster than where.
    return torch.lerp(images, operation.apply(images, parameters), per_image(applied.to(images.dtype)))
