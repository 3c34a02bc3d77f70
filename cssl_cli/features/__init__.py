"""Frozen features of images and their views; distances, intervals and probes computed from them."""
