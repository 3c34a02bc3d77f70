"""Files, signals, streams, progress and randomness: what every room above builds on."""
