"""What compiled kernels have to issue, read from their machine code: a least time that was predicted, not measured.

A multiprocessor of Hopper has four schedulers, each of which issues at most one instruction of one warp in a cycle, and its tensor
cores do 4096 operations of bfloat16 in one ("NVIDIA H100 Tensor Core GPU Architecture", version 1.04). So a loop of L instructions
takes W warps at least L * W / 4 cycles. Meanwhile memory delivers a share of its rate, and the tensor cores do their share of
operations. Where issuing takes longer than the one or the other, a kernel cannot reach that rate; where it takes less nothing
follows, since instructions may be slower than they are issued, or wait.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf, prod

import torch

from formats.errors import BitatlasError, InvalidValueError
from hwmodels.gpu.devices import GpuDevice
from hwmodels.gpu.kernels.compiling import Compiled
from hwmodels.gpu.kernels.launching import Tile
from hwmodels.gpu.kernels.quantize_plan import Plan
from hwmodels.gpu.kernels.requests import weight_only_request
from hwmodels.gpu.kernels.weight_operand import WeightOperand

#: threads of a warp
LANES = 32
#: instructions that a multiprocessor issues in a cycle
SCHEDULERS = 4
#: multiplications and additions of bfloat16 that the tensor cores of a multiprocessor do in a cycle, by architecture
OPERATIONS_PER_CYCLE = {"sm_90": 4096}

_LINE = re.compile(r"(?:[^\s:]+:){4}[0-9a-f]\t(.*);")
_LABEL = re.compile(r"(\.?L\w+):")
_BRANCH = re.compile(r"(@\S+ )?BRA\S* +(\.?L\w+)$")
_WARPGROUP = 4


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a kernel has to issue for each weight that it multiplies, or each number that it quantizes: never measured."""

    #: of the weights, or of the codes
    format: str
    #: rows of the product; 0 of a quantizer
    rows: int
    #: None of a quantizer
    tile: Tile | None
    #: instructions that a warp issues, for one tile of the weights or for all of a program's numbers
    instructions: int
    #: instructions of a thread for each weight or number
    per_number: float
    #: registers of a thread, bytes of shared memory of a program, bytes of a thread that spill to memory
    registers: int
    shared: int
    spills: int
    #: cycles of issuing for each cycle in which the memory moves the codes and scales, of a quantizer also the numbers
    issue_share: float
    #: cycles of issuing for each cycle in which tensor cores multiply a tile in bfloat16, once; None of a quantizer
    tensor_share: float | None = None


def main_loop(sass: str) -> tuple[str, ...]:
    """Return the instructions of the longest loop, from a label to a later branch back to it; ``BitatlasError`` without one."""
    instructions, labels = _parsed(sass)
    backward = [(labels[label], place + 1) for place, label in _branches(instructions, labels) if labels[label] < place]
    if not backward:
        raise BitatlasError("machine code must have a loop, not none")
    start, stop = max(backward, key=lambda each: each[1] - each[0])
    return instructions[start:stop]


def least_path(sass: str) -> tuple[str, ...]:
    """Return the instructions from the first to the end, ``EXIT`` without a predicate, by the shortest way that branches allow.

    What only some numbers need, as a slow division, is left out. Raises ``BitatlasError`` for code with a loop before the end.
    """
    instructions, labels = _parsed(sass)
    if "EXIT" not in instructions:
        raise BitatlasError("machine code must end in EXIT, not without")
    target = {place: labels[label] for place, label in _branches(instructions, labels)}
    if any(there <= place < instructions.index("EXIT") for place, there in target.items()):
        raise BitatlasError("machine code must have no loop, not a branch back")
    # the fewest instructions from each place to an end, and the place that follows on that way
    least, following = [inf] * (len(instructions) + 1), [0] * len(instructions)
    for place in reversed(range(len(instructions))):
        text = instructions[place]
        onward = [] if text.startswith(("BRA", "EXIT", "RET")) else [place + 1]
        onward += [target[place]] if target.get(place, 0) > place else []
        following[place] = min(onward, key=least.__getitem__, default=len(instructions))
        least[place] = 1 if text == "EXIT" else 1 + least[following[place]]
    path = [0]
    while instructions[path[-1]] != "EXIT":
        path.append(following[path[-1]])
    return tuple(instructions[place] for place in path)


def opcode(instruction: str) -> str:
    """Return what an instruction does, without its predicate, modifiers and operands: ``LDG`` of ``@!P0 LDG.E.128 R4, …``."""
    return _unpredicated(instruction).split()[0].split(".")[0]


def opcodes(instructions: Iterable[str]) -> Counter[str]:
    """Return how often each opcode occurs."""
    return Counter(map(opcode, instructions))


def bytes_of(instruction: str) -> int:
    """Return how many bytes a thread loads or stores by an instruction: 4 where no modifier says otherwise."""
    _, *modifiers = _unpredicated(instruction).split()[0].split(".")
    if "M88" in modifiers:  # one, two or four matrices of 8 x 8 in 16 bits by 32 threads
        return 4 * int(modifiers[-1]) if modifiers[-1].isdecimal() else 4
    sizes = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
    return next((sizes[each] for each in modifiers if each in sizes), 4)


def clock(device: GpuDevice) -> float:
    """Return the cycles a second at which the device's tensor cores reach the peak of its data sheet; ``ValueError`` if unknown."""
    if device.architecture not in OPERATIONS_PER_CYCLE:
        known = ", ".join(OPERATIONS_PER_CYCLE)
        raise InvalidValueError(f"architecture of a GPU that issues are predicted for must be {known}, not {device.architecture}")
    per_cycle = device.multiprocessors * OPERATIONS_PER_CYCLE[device.architecture]
    return device.operations_per_second("bfloat16") / per_cycle


def memory_cycles(size: float, device: GpuDevice) -> float:
    """Return the cycles in which memory delivers so many bytes to one of the multiprocessors, all of which are served alike."""
    return size / (device.bytes_per_second / device.multiprocessors / clock(device))


def predict_product(weight: WeightOperand, rows: int, tile: Tile, made: Compiled, device: GpuDevice) -> Prediction:
    """Return the prediction for a weight-only product, ``made`` of ``weight_only_request(weight, rows, tile)``.

    Raises ``BitatlasError`` where the tensor cores multiply anything but one tile in the main loop.
    """
    loop, fmt, group = main_loop(made.sass), weight.fmt, weight.weight.group
    weights, products = tile.columns * tile.depth, tile.rows * tile.columns * tile.depth
    wanted = products * weight_only_request(weight, rows, tile).constants["TERMS"]
    multiplied = _multiplied(loop) * tile.warps // _WARPGROUP
    if multiplied not in (0, wanted):  # 0: in float32, without tensor cores
        raise BitatlasError(f"main loop must multiply one tile, {wanted} products, not {multiplied}: {fmt.name}")
    scales = weights / group * weight.weight.scales.element_size() if group else 0
    issue = len(loop) * tile.warps / SCHEDULERS
    return Prediction(
        format=fmt.name,
        rows=rows,
        tile=tile,
        instructions=len(loop),
        per_number=len(loop) * LANES * tile.warps / weights,
        registers=made.registers,
        shared=made.shared,
        spills=made.spills,
        issue_share=issue / memory_cycles(weights * fmt.bits / 8 + scales, device),
        tensor_share=issue / (2 * products / OPERATIONS_PER_CYCLE[device.architecture]),
    )


def predict_quantizer(name: str, plan: Plan, values: torch.dtype, made: Compiled, device: GpuDevice) -> Prediction:
    """Return the prediction for a quantizer to the format ``name``, ``made`` of ``quantize_request(plan, values)``.

    Raises ``BitatlasError`` for groups so long that a program reads them in pieces.
    """
    path, constants = least_path(made.sass), plan.constants()
    numbers = constants["GROUPS"] * constants["SIZE"]
    moved = numbers * (values.itemsize + 1 + plan.dtype.itemsize / plan.group)
    return Prediction(
        format=name,
        rows=0,
        tile=None,
        instructions=len(path),
        per_number=len(path) * LANES * plan.warps / numbers,
        registers=made.registers,
        shared=made.shared,
        spills=made.spills,
        issue_share=len(path) * plan.warps / SCHEDULERS / memory_cycles(moved, device),
    )


def _parsed(sass: str) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return all instructions, and the place of the one that follows each label."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in sass.splitlines():
        if found := _LINE.match(line):
            instructions.append(found.group(1).strip())
        elif found := _LABEL.match(line.strip()):
            labels[found.group(1)] = len(instructions)
    return tuple(instructions), labels


def _branches(instructions: Sequence[str], labels: dict[str, int]) -> list[tuple[int, str]]:
    """Return the place of each branch to a label, and the label."""
    found = [(place, _BRANCH.match(each)) for place, each in enumerate(instructions)]
    return [(place, branch.group(2)) for place, branch in found if branch and branch.group(2) in labels]


def _unpredicated(instruction: str) -> str:
    return re.sub(r"^@\S+ +", "", instruction)


def _multiplied(instructions: Iterable[str]) -> int:
    """Return the products that one warpgroup's instructions for Hopper's tensor cores make."""
    shapes = (re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)", _unpredicated(each)) for each in instructions)
    return sum(prod(map(int, shape.groups())) for shape in shapes if shape)
