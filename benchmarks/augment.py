"""Augmentation throughput on a CPU: the package's batched five augmentations against torchvision's on PIL images.

    python benchmarks/augment.py [--threads 2] [--batch 256] [--side 32] [--repetitions 15]

Both sides run the same five (crop, flip, colour distortion, grayscale, blur) with the same settings on the same images,
in turns, in one process; medians are printed. torchvision's pipeline works on one image at a time and so on one core:
the ratio with one thread is the one per core. Threads wait for one another: measure on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torchvision import transforms

from cssl_cli.augment import build_augmentation
from cssl_cli.randomness import stream

FIVE = {
    "crop": {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)},
    "flip": {"p": 0.5},
    "jitter": {"p": 0.8, "strength": 0.5, "brightness": None, "contrast": None, "saturation": None, "hue": None},
    "gray": {"p": 0.2},
    "blur": {"p": 0.5, "sigma": (0.1, 2.0), "kernel_size": None},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()

    generator = stream(0, "benchmark")
    shape = (options.batch, 3, options.side, options.side)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    pil_images = [transforms.functional.to_pil_image(image) for image in images]
    pil_pipeline = torchvision_pipeline(options.side)
    augmentation = build_augmentation(FIVE, image_size=options.side)

    candidates: dict[str, Callable[[], object]] = {
        "torchvision, PIL, one image at a time": with_threads(
            1, lambda: torch.stack([pil_pipeline(image) for image in pil_images])
        ),
    }
    for threads in sorted({1, options.threads}):
        candidates[f"cssl, {threads} thread{'s' if threads > 1 else ''}"] = with_threads(
            threads, lambda: augmentation.apply(images, augmentation.draw(options.batch, generator))
        )
    seconds = alternate(candidates, options.repetitions)

    print(
        f"five augmentations, {options.batch} images of {options.side}×{options.side}, median of {options.repetitions}"
    )
    slowest = next(iter(seconds.values()))
    for name, duration in seconds.items():
        print(f"  {name:40s} {options.batch / duration:10,.0f} images/s  ×{slowest / duration:.1f}")
    print(f"\neach operation alone, {options.threads} threads")
    floats = images.float() / 255
    alone: dict[str, Callable[[], object]] = {}
    for name, fields in FIVE.items():
        one = build_augmentation({name: fields}, image_size=options.side)
        theta = one.draw(options.batch, generator)
        alone[name] = with_threads(options.threads, lambda one=one, theta=theta: one.apply(floats, theta))
    for name, duration in alternate(alone, options.repetitions).items():
        print(f"  {name:8s} {1e3 * duration:7.2f} ms")


def torchvision_pipeline(side: int) -> transforms.Compose:
    """The same five, as SimCLR implementations commonly write them."""
    kernel_size = max(3, 2 * (side // 20) + 1)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(side, FIVE["crop"]["scale"], FIVE["crop"]["ratio"]),
            transforms.RandomHorizontalFlip(FIVE["flip"]["p"]),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], FIVE["jitter"]["p"]),
            transforms.RandomGrayscale(FIVE["gray"]["p"]),
            transforms.RandomApply([transforms.GaussianBlur(kernel_size, FIVE["blur"]["sigma"])], FIVE["blur"]["p"]),
            transforms.ToTensor(),
        ]
    )


def with_threads(threads: int, function: Callable[[], object]) -> Callable[[], object]:
    def run() -> None:
        torch.set_num_threads(threads)
        function()

    return run


def alternate(candidates: dict[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Median seconds of each candidate; they take turns, so that whatever disturbs the machine disturbs them all."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for repetition in range(repetitions + 2):
        for name, function in candidates.items():
            start = time.perf_counter()
            function()
            if repetition >= 2:  # the first two warm up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
