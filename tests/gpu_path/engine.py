"""Torch's backward pass, walked in Python: its engine refuses fake CUDA tensors where there is no GPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def backward(tensors: Any, grad_tensors: Any = None, *_: Any, **__: Any) -> None:
    """In the place of `torch.autograd.backward`: gradients of the leaves are added up in `.grad`."""
    tensors = _listed(tensors)
    _walk(tensors, _of_outputs(tensors, grad_tensors), None)


def tensor_backward(tensor: Tensor, gradient: Tensor | None = None, *_: Any, **__: Any) -> None:
    """In the place of `Tensor.backward`."""
    backward([tensor], [gradient])


def grad(outputs: Any, inputs: Any, grad_outputs: Any = None, *_: Any, **__: Any) -> tuple[Tensor | None, ...]:
    """In the place of `torch.autograd.grad`, but for second derivatives."""
    outputs = _listed(outputs)
    return tuple(_walk(outputs, _of_outputs(outputs, grad_outputs), _listed(inputs)))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value]


def _of_outputs(outputs: list[Tensor], gradients: Any) -> list[Tensor]:
    given = [None] * len(outputs) if gradients is None else _listed(gradients)
    return [torch.ones_like(o) if one is None else one for o, one in zip(outputs, given, strict=True)]


@torch.no_grad()
def _walk(outputs: list[Tensor], gradients: list[Tensor], wanted: list[Tensor] | None) -> list[Tensor | None]:
    """Leaves collect their gradients, or, where tensors are `wanted`, theirs are returned and no leaf changes."""
    roots = [output.grad_fn for output in outputs]
    arrived: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    for output, gradient in zip(outputs, gradients, strict=True):
        _add(arrived[output.grad_fn], output.output_nr, gradient)
    places = [_place(tensor) for tensor in wanted or ()]
    order = _consumers_first(roots)
    needed = set(order) if wanted is None else _above(order, {node for node, _ in places})
    found: dict[Any, Tensor] = {}
    for node in order:
        got = arrived.pop(node, {})
        leaf = _is_leaf(node)
        found.update({(_key(node), slot): gradient for slot, gradient in got.items()} if wanted else {})
        if not got or (wanted is not None and (leaf or not any(next_ in needed for next_, _ in node.next_functions))):
            continue
        if leaf:
            _accumulate(node, got[0])
            continue
        made = _call(node, [got.get(slot) for slot in range(len(node._input_metadata))])
        for (following, slot), gradient in zip(node.next_functions, made, strict=False):
            if following in needed and gradient is not None:
                like = following._input_metadata[slot]
                _add(arrived[following], slot, gradient.to(like.dtype).sum_to_size(like.shape))  # as the engine does
    return [found.get(place) for place in places]


def _add(slots: dict[int, Tensor], slot: int, gradient: Tensor) -> None:
    slots[slot] = slots[slot] + gradient if slot in slots else gradient


def _is_leaf(node: Any) -> bool:
    return type(node).__name__ == "AccumulateGrad"


def _key(node: Any) -> Any:
    return id(node.variable) if _is_leaf(node) else node


def _place(tensor: Tensor) -> tuple[Any, int]:
    return (id(tensor), 0) if tensor.grad_fn is None else (tensor.grad_fn, tensor.output_nr)


def _above(order: Sequence[Any], ends: set[Any]) -> set[Any]:
    """The nodes whose gradients lead to one of the `ends`."""
    needed: set[Any] = set()
    for node in reversed(order):
        if _key(node) in ends or any(following in needed for following, _ in node.next_functions):
            needed.add(node)
    return needed


def _consumers_first(roots: Sequence[Any]) -> list[Any]:
    """All nodes below the roots, each before those that take its gradients."""
    order, seen, stack = [], set(), [(root, False) for root in roots]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((following, False) for following, _ in node.next_functions if following is not None)
    return order[::-1]


def _accumulate(node: Any, gradient: Tensor) -> None:
    """A first gradient in the parameter's layout becomes `.grad` itself; the node would copy what is held here, too."""
    if node.variable.grad is None and gradient.stride() == node.variable.stride():
        node.variable.grad = gradient.detach()
    else:
        node(gradient)


def _call(node: Any, arguments: list[Tensor | None]) -> Sequence[Tensor | None]:
    if type(node).__name__.startswith("CompiledFunction"):  # asks for zeros in the place of nothing
        arguments = [
            torch.zeros(like.shape, dtype=like.dtype, device="cuda") if argument is None else argument
            for argument, like in zip(arguments, node._input_metadata, strict=True)
        ]
    of_python = isinstance(node, torch.autograd.function.BackwardCFunction)
    made = node.apply(*arguments) if of_python else node(*arguments)
    return made if isinstance(made, tuple | list) else (made,)
