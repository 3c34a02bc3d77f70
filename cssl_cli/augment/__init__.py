"""Batched augmentations on the images' device, with drawing and applying apart."""

from cssl_cli.augment.pipeline import OPERATIONS, Augmentation, build_augmentation, normalize

__all__ = ["OPERATIONS", "Augmentation", "build_augmentation", "normalize"]
