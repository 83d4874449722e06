"""Counts the bytes that a training step must move at least, whatever a compiler does.

As if all that is not a convolution were part of one, and nothing stayed in a cache: a convolution reads what goes in,
and writes its result; its gradients read that of the result and what went in, and write that of what went in. The
gradient of ReLU reads the feature map once, a shortcut is read once in each direction, a pooling keeps a byte of each
result. A weight is read forth and back, its gradient is written and read, it and its momentum are read and written.
Eigenlayer, classifier and BatchNorm with the batch's statistics are not counted but for their weights.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import Literal

from svdnet_jax.models.svdnet import SVDNet

OF_A_WEIGHT, OF_A_FROZEN_WEIGHT = 8 * 4, 4
"""Bytes a number: read twice, gradient written and read, weight and momentum read and written; or read once."""
_SAME = {"convert_element_type", "copy", "stop_gradient"}
"""What makes no feature map of its own."""
_PROGRAMS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Where JAX keeps the program that an equation calls."""


class Value(NamedTuple):
    """A value in a program."""

    number: int
    trained: bool
    """Whether a gradient goes through it."""
    shape: tuple[int, ...]
    size: int
    """Bytes."""

    @property
    def numbers(self) -> int:
        """Counts what it holds."""
        return int(np.prod(self.shape))

    @property
    def positions(self) -> int:
        """Counts the positions of a feature map (N, H, W, C)."""
        return int(np.prod(self.shape[:-1]))


class Equation(NamedTuple):
    """A line of a program that calls no other."""

    name: str
    operands: tuple[Value, ...]
    result: Value


def least_of_step(model: SVDNet, variables: Any, trained: Iterable[bool], images: jax.ShapeDtypeStruct) -> int:
    """Counts the bytes of a step of a network with stored statistics.

    Args:
        model: The network.
        variables: Shapes of its variables.
        trained: Whether each leaf of ``variables["params"]`` is.
        images: Shape of a batch as it goes into the network.
    """
    params, rest = variables["params"], {name: tree for name, tree in variables.items() if name != "params"}
    forth = lambda params, images: model.apply({**rest, "params": params}, images, train=False)  # noqa: E731
    rest = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), rest)
    labels = [*trained]
    weights = zip(jax.tree.leaves(params), labels, strict=True)
    moved = sum(leaf.size * (OF_A_WEIGHT if label else OF_A_FROZEN_WEIGHT) for leaf, label in weights)
    return int(moved) + least_of_maps(jax.make_jaxpr(forth)(params, images), [*labels, False])


def least_of_maps(program: Any, trained: Sequence[bool]) -> int:
    """Counts the bytes of feature maps, of a program and of those inputs that are trained."""
    moved, used, rectified = 0, set[int](), set[int]()
    for name, operands, result in _flat(program, trained):
        if name == "conv_general_dilated":
            x, kernel = operands
            seen = min(x.positions, result.positions * kernel.shape[0] * kernel.shape[1])
            read = x.size // x.positions * seen
            moved += read + result.size  # forth
            moved += (read + result.size) * kernel.trained  # gradient by the kernel
            moved += (result.size + x.size) * x.trained  # gradient by what goes in
            # Once for ReLU, whose result goes in; then for the sum with the gradient that another user wrote.
            moved += x.size * (x.trained and (x.number in used or x.number in rectified))
            used.add(x.number)
        elif name == "add" and len(result.shape) == 4 and all(each.shape == result.shape for each in operands):
            moved += result.size * (1 + all(each.trained for each in operands))
        elif name == "max":
            rectified.add(result.number)
        elif name == "reduce_window_max":
            moved += operands[0].size + result.size
            moved += (operands[0].size + result.size + 2 * result.numbers) * result.trained
    return moved


def _flat(program: Any, trained: Sequence[bool]) -> list[Equation]:
    """Returns the equations of a program and of those that it calls, in order."""
    found: list[Equation] = []
    count = itertools.count()

    def new(aval: Any, trained: bool) -> Value:
        return Value(next(count), trained, tuple(aval.shape), int(np.prod(aval.shape)) * aval.dtype.itemsize)

    def walk(jaxpr: Any, values: Sequence[Value]) -> list[Value]:
        known = dict(zip(jaxpr.invars, values, strict=True)) | {var: new(var.aval, False) for var in jaxpr.constvars}
        look = lambda var: new(var.aval, False) if isinstance(var, Literal) else known[var]  # noqa: E731
        for each in jaxpr.eqns:
            operands, name = [look(var) for var in each.invars], each.primitive.name
            inner = next((each.params[key] for key in _PROGRAMS if key in each.params), None)
            if inner is not None:
                results = walk(getattr(inner, "jaxpr", inner), operands)
            else:
                results = [new(var.aval, any(value.trained for value in operands)) for var in each.outvars]
                if name in _SAME:
                    results = [results[0]._replace(number=operands[0].number)]
                found.append(Equation(name, tuple(operands), results[0]))
            known |= dict(zip(each.outvars, results, strict=True))
        return [look(var) for var in jaxpr.outvars]

    walk(program.jaxpr, [new(var.aval, label) for var, label in zip(program.jaxpr.invars, trained, strict=True)])
    return found
