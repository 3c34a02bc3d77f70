"""theta of many coming steps, copied to the GPU at once, since launching a copy for each step takes longer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from cssl_cli.data.batches import sent

MOST_STEPS = 32
MOST_BYTES = 2**23  # of theta under way


class ThetaAhead:
    """theta of step after step on the `device`, each from a call of `draw(B, generator)` of its own.

    What is drawn does not depend on how many steps are drawn at once, nor does the state: it is the stream's after the
    last theta that was taken, so that a run that goes on from it draws what it would have drawn.
    """

    def __init__(
        self, draw: Callable[[int, torch.Generator], Tensor], generator: torch.Generator, device: torch.device
    ) -> None:
        self.draw, self.generator, self.device = draw, generator, device
        self.coming: deque[tuple[Tensor, Tensor]] = deque()  # theta, and the stream's state after it
        self.state = generator.get_state()
        self.num = 0  # that `draw` was called with for those that come

    def take(self, num: int) -> Tensor:
        """theta of the next step, as `draw(num, …)` gives it; nothing waits for the device."""
        if not self.coming or self.num != num:
            self._draw(num)
        theta, self.state = self.coming.popleft()
        return theta

    def go_on_from(self, state: Tensor) -> None:
        """Draw next what followed when the state was `state`; raises what `Generator.set_state` raises."""
        self.generator.set_state(state)
        self.coming.clear()
        self.state = state

    def _draw(self, num: int) -> None:
        self.num = num
        self.go_on_from(self.state)  # what was drawn for steps of another length is drawn anew
        drawn: list[Tensor] = []
        states: list[Tensor] = []
        most = 1
        while len(drawn) < most:
            drawn.append(self.draw(num, self.generator))
            states.append(self.generator.get_state())
            if self.device.type == "cuda":
                most = min(MOST_STEPS, MOST_BYTES // max(1, drawn[0].nbytes))
        self.coming.extend(zip(sent(drawn, self.device), states, strict=True))
