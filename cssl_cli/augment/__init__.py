"""Batched augmentations on the images' device; drawing parameters and applying them are separate."""

from cssl_cli.augment.pipeline import OPERATIONS, Augmentation, build_augmentation, normalize

__all__ = ["OPERATIONS", "Augmentation", "build_augmentation", "normalize"]
