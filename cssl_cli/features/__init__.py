"""Frozen features of images and views, and what is computed from them: distances, intervals, probes."""
