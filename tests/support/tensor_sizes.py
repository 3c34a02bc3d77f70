"""How large the tensors are that a computation goes through, inside of operators and backward passes, too."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch


def largest_tensor(compute: Callable[[], torch.Tensor]) -> int:
    """Entries of the largest tensor that any operation takes in while `compute` runs and its result is differentiated.

    What an operation makes counts when the next one takes it in: a matrix that is made only to be summed is seen.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        compute().backward()
    shapes = [shape for event in profile.events() for shape in event.input_shapes or []]
    return max(math.prod(shape) for shape in shapes if all(isinstance(side, int) for side in shape))
