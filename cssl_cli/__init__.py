"""cssl: why, and when, does contrastive self-supervised pretraining generalize to downstream classification?

Shape letters, one legend for the whole package: N images, B batch, V views of an image, K classes,
C H W channels and pixels, D encoder width, P projector width.
"""

__version__ = "0.1.0"
