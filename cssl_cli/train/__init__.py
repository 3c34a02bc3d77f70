"""Training: the optimizer, the step, the loop."""
