"""What a compiled program does, from its text: bytes that its instructions read and write, collectives, copies."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4}
SIZES |= {"f64": 8, "s64": 8, "u64": 8, "c64": 8}
_SHAPE = re.compile(r"\b(pred|bf16|[a-z]\d{1,2})\[([\d,]*)\](\{[^}]*\})?")
_LINE = re.compile(r"^\s+(?:ROOT )?%?(\S+) = (.*?) ([a-z][a-z0-9-]*)\((.*)$")
_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.-]+) .*\{$")
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all"}
"""Instructions that move nothing by themselves; nor does the end of what is asynchronous, whose start is counted."""
_SLICES = ("slice", "dynamic-slice")
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")


class Instruction(NamedTuple):
    """A line of a program."""

    name: str
    op: str
    size: int
    """Bytes of the result."""
    held: int
    """Of these, those in the device's main memory; a TPU keeps some arrays on the chip."""
    operands: tuple[str, ...]
    text: str


class Work(NamedTuple):
    """What the instructions of a computation do, each once."""

    moved: int
    """Bytes of operands and results in main memory."""
    collectives: int
    collective_bytes: int
    copies: int
    """Copies and transpositions that are instructions of their own."""


def computations(text: str) -> dict[str, list[Instruction]]:
    """Returns the instructions of each computation of a program in XLA's text form."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] | None = None
    for line in text.splitlines():
        if line and not line[0].isspace():
            head = _HEAD.match(line)
            current = found.setdefault(head[1], []) if head else None
        elif current is not None and (match := _LINE.match(line)):
            name, shape, op, rest = match.groups()
            operands = tuple(re.findall(r"%([\w.-]+)", rest.partition("), ")[0]))
            current.append(Instruction(name, op, size_of(shape), size_of(shape, on_chip=False), operands, line))
    return found


def size_of(shape: str, on_chip: bool = True) -> int:
    """Returns the bytes of a shape, or of all in a tuple of shapes.

    Args:
        shape: In XLA's text form, with the layout.
        on_chip: With those of arrays that are not in main memory, whose layout names another memory space, ``S(1)``.
    """
    total = 0
    for kind, lengths, layout in _SHAPE.findall(shape):
        if not on_chip and "S(" in layout:
            continue
        count = 1
        for length in filter(None, lengths.split(",")):
            count *= int(length)
        total += count * SIZES.get(kind, 0)
    return total


def step_of(found: Mapping[str, Sequence[Instruction]]) -> Sequence[Instruction]:
    """Returns the computation of a step: the longest body of a loop, or the whole program where there is none."""
    loops = [line for lines in found.values() for line in lines if line.op == "while"]
    bodies = [found[match[1]] for line in loops if (match := re.search(r"body=%?([\w.-]+)", line.text))]
    return max([*bodies, *([] if bodies else found.values())], key=len)


def work_of(step: Sequence[Instruction], ignored: int = 0) -> Work:
    """Counts what instructions do.

    Args:
        step: Of a computation.
        ignored: Bytes of the store of all images, of which a step reads a batch; operands of this size are left out.
    """
    known = {each.name: each for each in step}
    moved = copies = collectives = collective_bytes = 0
    for each in step:
        if each.op in _FREE or each.op.endswith("-done"):
            continue
        moved += _moved(each, [known[name] for name in each.operands if name in known], ignored)
        copies += each.op in ("copy", "transpose")
        if each.op.removesuffix("-start") in _COLLECTIVES:
            collectives += 1
            collective_bytes += each.size
    return Work(moved, collectives, collective_bytes, copies)


def _moved(each: Instruction, operands: Sequence[Instruction], ignored: int) -> int:
    """Returns the bytes that an instruction reads from main memory and writes there."""
    read = sum(one.held for one in operands if one.held != ignored or not ignored)
    if each.op == "copy-start":
        return each.held  # it holds both ends
    if each.op == "slice-start":  # it holds the array, the part of it, and a number
        part = each.size - sum(one.size for one in operands) - 4
        return part * bool(read) + each.held - read
    if each.op in _SLICES or each.name.startswith(tuple(f"wrapped_{op}" for op in _SLICES)):
        # A part of one array, such as a weight's gradient in the buffer of all that were reduced together.
        read = min(read, each.size)
    return each.held + read
