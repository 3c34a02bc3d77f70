"""Batched augmentations on the images' device; drawing parameters and applying them are separate."""

from cssl_cli.augment.pipeline import OPERATIONS, Augmentation, build_augmentation, normalize, require_channels
from cssl_cli.augment.resize import clean_views

__all__ = ["OPERATIONS", "Augmentation", "build_augmentation", "clean_views", "normalize", "require_channels"]
