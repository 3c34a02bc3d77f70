"""Ranges of settings, with a description where the bounds alone do not say it.

Everything that declares settings, here or in the numeric core, takes its types from this module. It loads
neither pydantic nor torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen, Predicate


@dataclass(frozen=True)
class Allowed:
    """What a field takes, in words; and what stands for its value in a hint, "" where an override cannot give it."""

    text: str
    placeholder: str = "VALUE"


class Disagreement(ValueError):
    """Two fields that do not go together, each by its path in a recipe: what was given last is to blame."""

    def __init__(self, problem: str, *fields: str) -> None:
        super().__init__(problem)
        self.fields = tuple(tuple(field.split(".")) for field in fields)


@dataclass(frozen=True)
class Undeciding:
    """Marks a setting that changes no result: the fingerprint is without it."""


@dataclass(frozen=True)
class Added:
    """Marks a setting that is younger than the block it is in: at its default, the fingerprint is without it.

    In `probe`, so are the settings by which stored accuracies are found.
    """


@dataclass(frozen=True)
class Absolute:
    """Of a path: it is written down as an absolute one. pydantic asks a constraint for its schema by this method."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core.core_schema import no_info_after_validator_function

        from cssl_cli.recipe.validators import absolute

        return no_info_after_validator_function(absolute, handler(source))


@dataclass(frozen=True)
class AbsoluteIfPath:
    """Of a name or a path: a path, which begins with `/`, `.`, `~` or `$`, is written down as an absolute one."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core.core_schema import no_info_after_validator_function

        from cssl_cli.recipe.validators import absolute_if_path

        return no_info_after_validator_function(absolute_if_path, handler(source))


def ascending(pair: tuple[float, float]) -> bool:
    return pair[0] <= pair[1]


def _odd(value: int) -> bool:
    return value % 2 == 1


Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Gt(0), Lt(1)]
Probability = Annotated[float, Ge(0), Le(1)]
Decay = Annotated[float, Ge(0), Lt(1)]
Size = Annotated[int, Ge(8), Le(1024)]
Channels = Annotated[Literal[1, 3], Added()]
Width = Annotated[int, Ge(1), Le(4096)]
ImageCount = Annotated[int, Ge(2)]
LayerWidth = Annotated[int, Ge(1), Le(65536)]
Widths = Annotated[tuple[LayerWidth, ...], MinLen(1), Allowed("a list of whole numbers from 1 to 65536")]
PositiveRange = Annotated[tuple[Positive, Positive], Predicate(ascending), Allowed("[low, high] with 0 < low <= high")]
AreaRange = Annotated[
    tuple[Positive, Annotated[float, Le(1)]],
    Predicate(ascending),
    Allowed("[low, high] with 0 < low <= high <= 1"),
]
ShareRange = Annotated[
    tuple[Probability, Probability], Predicate(ascending), Allowed("[low, high] with 0 <= low <= high <= 1")
]
KernelSize = Annotated[int, Ge(3), Predicate(_odd), Allowed("an odd whole number >= 3")]
Folder = Annotated[str, MinLen(1), Absolute(), Allowed("the path of a folder", "PATH")]
ModelName = Annotated[str, MinLen(1), Allowed("the name of a model", "NAME")]
Text = Annotated[str, MinLen(1), Allowed("text")]
FolderOrName = Annotated[str, MinLen(1), AbsoluteIfPath(), Allowed("a name, or the path of a folder", "PATH")]
File = Annotated[str, MinLen(1), Absolute(), Allowed("the path of a file", "PATH")]
TorchvisionSet = Literal[
    "CIFAR10",
    "CIFAR100",
    "CLEVRClassification",
    "Caltech101",
    "Caltech256",
    "Country211",
    "DTD",
    "EMNIST-balanced",
    "EMNIST-byclass",
    "EMNIST-bymerge",
    "EMNIST-digits",
    "EMNIST-letters",
    "EMNIST-mnist",
    "EuroSAT",
    "FER2013",
    "FGVCAircraft",
    "FakeData",
    "FashionMNIST",
    "Flowers102",
    "Food101",
    "GTSRB",
    "ImageNet",
    "Imagenette",
    "KMNIST",
    "MNIST",
    "Omniglot",
    "OxfordIIITPet",
    "Places365",
    "QMNIST",
    "RenderedSST2",
    "SEMEION",
    "STL10",
    "SUN397",
    "SVHN",
    "StanfordCars",
    "USPS",
]
"""The classes of torchvision.datasets that are read by name; data/torchvision_by_name.py says how."""
