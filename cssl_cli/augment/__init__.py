"""Batched augmentations on the images' device; drawing parameters and applying them are separate."""

from cssl_cli.augment.building import build_augmentation, require_channels
from cssl_cli.augment.pipeline import OPERATIONS, Augmentation, normalize
from cssl_cli.augment.resize import clean_views

__all__ = ["OPERATIONS", "Augmentation", "build_augmentation", "clean_views", "normalize", "require_channels"]
