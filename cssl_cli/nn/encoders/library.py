"""Encoders from libraries, torchvision and timm: their networks without the classifier."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from cssl_cli.errors import InputError
from cssl_cli.nn.batch_norm import BatchNorm2d
from cssl_cli.nn.recompute import Encoder

_WIDTHS: dict[Hashable, int] = {}  # of encoders built before


class LibraryEncoder(Encoder):
    """A library's network as an encoder: images (B, C, H, W) → features (B, D), D = `num_features`.

    `make` builds the network with weights of its library's choice, drawn from torch's global generator; it has no
    classifier. `image` is the shape (C, H, W) of an image that it takes, `called` what messages call it. Names in its
    `state_dict` are the library's own. Where training draws random numbers (dropout, stochastic depth), it draws them
    from torch's global generators.
    """

    draws = True

    def __init__(self, make: Callable[[], nn.Module], *, image: tuple[int, ...], called: str, key: Hashable) -> None:
        super().__init__()
        self.make, self.called = make, called
        self.model = _without_storage(make, called)
        for part in self.model.modules():
            if type(part) is nn.BatchNorm2d and part.affine and part.momentum is not None:
                part.__class__ = BatchNorm2d  # the same parameters, and nothing besides
        self.register_state_dict_post_hook(_without_prefix)
        self.register_load_state_dict_pre_hook(_with_prefix)
        if key not in _WIDTHS:
            _WIDTHS[key] = self._width(image)
        self.num_features = _WIDTHS[key]

    def features(self, images: Tensor) -> Tensor:
        features: Tensor = self.model(images)
        return features

    def draw_weights(self, generator: torch.Generator) -> None:
        """Take on the library's initial weights, as its own code draws them once torch is seeded from `generator`."""
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            fresh = _named_tensors(self.make())
        with torch.no_grad():
            for name, tensor in _named_tensors(self.model).items():
                tensor.copy_(fresh[name])

    def require(self, image: tuple[int, ...]) -> None:
        """`InputError` unless the network, without storage, takes images of this shape (C, H, W)."""
        self._output(image)

    def keep_less(self, *, checkpoint_activations: bool, micro_batch: int | None, batch_size: int) -> None:
        if checkpoint_activations:
            raise InputError(
                f"the blocks of {self.called} are not known, within which activations would be computed again",
                where="train.checkpoint_activations",
                remedy="Leave it out. A smaller train.micro_batch saves memory, too.",
            )
        for name, part in self.model.named_modules():
            if getattr(part, "running_mean", None) is not None and not isinstance(part, BatchNorm2d):
                raise InputError(
                    f"{name} of {self.called} is a {type(part).__name__}, whose running statistics would count each "
                    "micro-batch twice",
                    where="train.micro_batch",
                    remedy="Leave it out, or give another encoder.",
                )
        super().keep_less(checkpoint_activations=checkpoint_activations, micro_batch=micro_batch, batch_size=batch_size)

    def _width(self, image: tuple[int, ...]) -> int:
        output = self._output(image)
        if not isinstance(output, Tensor) or output.ndim != 2:
            found = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise InputError(f"{self.called} makes of two images {found}, not two vectors", where="encoder.model")
        return output.shape[1]

    @torch.no_grad()
    def _output(self, image: tuple[int, ...]) -> Any:
        training = self.training
        try:
            with torch.device("meta"):
                return self.model.eval()(torch.empty(2, *image))
        except Exception as error:  # whatever a library's checks raise
            channels, height, width = image
            raise InputError(
                f"{self.called} cannot take images of {channels} channels and {height}x{width} pixels: "
                f"{_reason(error)}",
                where="encoder.model",
                remedy="Give data.size, or encoder.image_size for a model of a fixed size.",
            ) from error
        finally:
            self.train(training)


def _without_storage(make: Callable[[], nn.Module], called: str) -> nn.Module:
    try:
        with torch.device("meta"):
            model = make()
    except (NotImplementedError, RuntimeError):  # a network that looks at numbers while it is built
        model = None
    except Exception as error:  # whatever a library's checks raise
        raise cannot_be_built(called, error) from error
    if model is None or any(_holds_a_tensor(part) for part in model.modules()):
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            try:
                model = make().to("meta")
            except Exception as error:
                raise cannot_be_built(called, error) from error
    return model


def cannot_be_built(called: str, error: Exception) -> InputError:
    """What a library says of settings that its network does not take."""
    return InputError(
        f"{called} cannot be built with these settings: {_reason(error)}",
        where="encoder",
        remedy="Give others, such as another image_size.",
    )


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _holds_a_tensor(part: nn.Module) -> bool:
    """Beside its parameters and buffers, so that no one would give it its numbers."""
    return any(isinstance(value, Tensor) for value in vars(part).values())


def _named_tensors(model: nn.Module) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(model.named_buffers(remove_duplicate=False))}


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:  # noqa: ARG001
    inner = f"{prefix}model."
    for key in [key for key in state if key.startswith(inner)]:
        state[prefix + key[len(inner) :]] = state.pop(key)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:  # noqa: ARG001
    for key in [key for key in state if key.startswith(prefix)]:
        state[f"{prefix}model.{key[len(prefix) :]}"] = state.pop(key)
