"""Fine-tuning: an encoder and a linear classifier on it, trained together on labelled images.

What is not a setting is as in SimCLR (Chen et al., arXiv 2002.05709, appendix B.8): Nesterov momentum 0.9, a cosine
without warm-up, every step on a full batch. The result is that of the last step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cssl_cli.augment import Augmentation, normalize
from cssl_cli.data.batches import Images
from cssl_cli.errors import RunError
from cssl_cli.nn.recompute import Encoder
from cssl_cli.train.loop import global_randomness
from cssl_cli.train.optimizers import build_optimizer, learning_rate

CHECK_INTERVAL = 50  # steps between two looks at the loss, each of which waits for the device
SGD = {"name": "sgd", "momentum": 0.9, "nesterov": True, "decay_norm_and_bias": True}


def num_steps(num_images: int, settings: Mapping[str, Any]) -> int:
    """The steps of fine-tuning on so many images; `settings` as of `finetune`."""
    per_epoch = num_images // min(settings["batch_size"], num_images)
    return int(max(settings["epochs"] * per_epoch, settings["min_steps"]))


def finetune(
    encoder: Encoder,
    images: Images,
    labels: Tensor,
    rows: Tensor,
    num_classes: int,
    augmentation: Augmentation,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    settings: Mapping[str, Any],
    device: torch.device,
    generator: torch.Generator,
    advance: Callable[[int], None],
) -> nn.Linear:
    """Trains `encoder`, on the device, and returns the classifier (K, D) on its features, which starts at 0.

    On the images at `rows` (M,) with their labels, of `images` and `labels` (N,), in float32. Every epoch is full
    batches of a fresh order, the rest left out; `settings` are epochs, min_steps, batch_size, lr and weight_decay.
    `generator` draws orders and views. Raises RunError if the loss becomes infinite or undefined.
    """
    encoder.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    head = nn.Linear(encoder.num_features, num_classes, device=device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    of_sgd = {**SGD, "lr": settings["lr"], "weight_decay": settings["weight_decay"]}
    optimizer = build_optimizer(nn.ModuleList([encoder, head]), of_sgd)
    batch_size, last = min(settings["batch_size"], len(rows)), num_steps(len(rows), settings)
    of_steps = int(torch.randint(2**31, (1,), generator=generator))  # what a network of a library draws dropout from
    labels, step = labels.to(device), 0
    while step < last:
        order = rows[torch.randperm(len(rows), generator=generator)]
        batches = [part for part in order.split(batch_size) if len(part) == batch_size][: last - step]
        for places, batch in zip(batches, images.batches(batches), strict=True):
            theta = augmentation.draw(batch_size, generator).to(device)
            views = normalize(augmentation.apply(batch, theta), mean, std)
            with global_randomness(of_steps + step if encoder.draws else None):
                features = encoder(views.contiguous(memory_format=torch.channels_last))
                loss = F.cross_entropy(head(features), labels[places.to(device)])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(
                    step, base=settings["lr"], schedule="cosine", warmup_steps=0, num_steps=last
                )
            optimizer.step()
            step += 1
            if step % CHECK_INTERVAL == 0 or step == last:
                _require_finite(loss, step)
            advance(1)
    encoder.eval()
    return head.requires_grad_(False)


def _require_finite(loss: Tensor, step: int) -> None:
    if not torch.isfinite(loss):
        raise RunError(
            f"the loss of fine-tuning became {loss.item()} by step {step}", remedy="Lower probe.finetune.lr."
        )
