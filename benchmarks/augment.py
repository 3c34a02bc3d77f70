"""Augmentation throughput on a CPU: the package's batched five augmentations against torchvision's on PIL images.

    python benchmarks/augment.py [--threads 2] [--batch 256] [--side 32] [--repetitions 15] [--json PATH]

Both sides run the same five (crop, flip, colour distortion, grayscale, blur) with the same settings on the same images,
in turns, in one process; medians are printed. torchvision's pipeline processes one image at a time, hence on one core:
the ratio with one thread is the ratio per core. Threads wait for one another: measure on an otherwise idle machine.
"""

from __future__ import annotations

import statistics
from typing import Any

import measuring
import torch
from torchvision import transforms

from cssl_cli.augment import build_augmentation
from cssl_cli.host.randomness import stream

TORCHVISION = "torchvision, PIL, one image at a time"
FIVE: dict[str, dict[str, Any]] = {
    "crop": {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)},
    "flip": {"p": 0.5},
    "jitter": {"p": 0.8, "strength": 0.5, "brightness": None, "contrast": None, "saturation": None, "hue": None},
    "gray": {"p": 0.2},
    "blur": {"p": 0.5, "sigma": (0.1, 2.0), "kernel_size": None},
}


def main() -> None:
    parser = measuring.option_parser(__doc__)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()
    report = measuring.Report(measuring.machine(measuring.prepare(options)))

    generator = stream(0, "benchmark")
    shape = (options.batch, 3, options.side, options.side)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    pil_images = [transforms.functional.to_pil_image(image) for image in images]
    pil_pipeline = torchvision_pipeline(options.side)
    augmentation = build_augmentation(FIVE, image_size=options.side)

    candidates: dict[str, measuring.Turn] = {
        TORCHVISION: measuring.with_threads(1, lambda: torch.stack([pil_pipeline(image) for image in pil_images])),
    }
    for threads in sorted({1, options.threads}):
        candidates[f"cssl, {threads} thread{'s' if threads > 1 else ''}"] = measuring.with_threads(
            threads, lambda: augmentation.apply(images, augmentation.draw(options.batch, generator))
        )
    seconds = measuring.alternate(candidates, options.repetitions, warm_up=2)

    print(
        f"five augmentations, {options.batch} images of {options.side}×{options.side}, median of {options.repetitions}"
    )
    rows = []
    for name, durations in seconds.items():
        found = measuring.ratio(seconds[TORCHVISION], durations)
        report.numbers[f"{name}, images/s"] = options.batch / statistics.median(durations)
        rows.append([name, f"{report.numbers[f'{name}, images/s']:,.0f}", f"{found['ratio']:.1f}"])
        if name != TORCHVISION:
            report.ratios[f"{name} over torchvision: {options.batch} images of side {options.side}"] = found
    measuring.print_table(["", "images/s", "× torchvision"], rows)
    print(f"\neach operation alone, {options.threads} threads")
    floats = images.float() / 255
    alone: dict[str, measuring.Turn] = {}
    for name, fields in FIVE.items():
        one = build_augmentation({name: fields}, image_size=options.side)
        theta = one.draw(options.batch, generator)
        alone[name] = measuring.with_threads(options.threads, lambda one=one, theta=theta: one.apply(floats, theta))
    medians = {
        name: statistics.median(durations)
        for name, durations in measuring.alternate(alone, options.repetitions, warm_up=2).items()
    }
    measuring.print_table(["", "ms"], [[name, f"{1e3 * median:.2f}"] for name, median in medians.items()])
    report.numbers |= {f"{name} alone, seconds": median for name, median in medians.items()}
    report.finish(options.json)


def torchvision_pipeline(side: int) -> transforms.Compose:
    """The same five augmentations, as SimCLR implementations commonly write them."""
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


if __name__ == "__main__":
    main()
