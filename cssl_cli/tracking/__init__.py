"""Trackers as mirrors: what a run directory records, shown in TensorBoard, W&B, MLflow or Trackio.

A mirror replays the records that are on disk, under the run's fingerprint. It holds no state that training or resuming
reads: `records` says what is mirrored, `mirror` when, and each tracker's file how. A file for a tracker has a class
that takes `Records` (and where to write, and a function of sentences) and has the methods of `mirror.Tracker`; it
replaces what an earlier process mirrored of the run, so that each step is there once.
"""
