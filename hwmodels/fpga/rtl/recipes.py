"""Architectures of a multiply-accumulate unit: how codes are presented, multiplied and summed.

The style decides the count of LUTs more than the format does, so a fair cost is the best recipe's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from amaranth import Module, Value

from hwmodels.fpga.rtl import products, sums
from hwmodels.fpga.rtl.decode import Mode, decode
from hwmodels.fpga.rtl.operand import Reading
from hwmodels.fpga.rtl.products import Multiply, Negation, Product
from hwmodels.fpga.rtl.sums import Partial
from hwmodels.fpga.rtl.wires import wired

Summing = Callable[[Module, Sequence[Partial], Partial, int], Value]
#: bits of both codes up to which a table over both is tried
TABLE_BITS = 7
#: bits of both magnitudes up to which minifloats are tried as fixed-point numbers, by style; beyond, a shifter is smaller
FIXED_BITS = 16
MAGNITUDE_BITS = 9
#: bits of a significand from which rows are tried for it
ROWS_BITS = 4
#: widest operands of a DSP48E1's multiplier, two's complement
DSP_WIDTHS = (25, 18)
#: bits of a product below which Yosys makes no use of a DSP slice
DSP_PRODUCT_BITS = 9


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An architecture by name."""

    name: str
    #: presentation of weight and activation; None for a table over both codes
    modes: tuple[Mode, Mode] | None
    multiply: Multiply
    summing: Summing
    #: whether a product is kept apart from the adders behind it
    keep: bool = True
    negation: Negation = Negation.LATE
    #: whether the multiplier may become a DSP slice
    dsp: bool = False


FIXED, MAGNITUDE, FLOATING = (Mode.FIXED,) * 2, (Mode.MAGNITUDE,) * 2, (Mode.FLOATING,) * 2

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="fixed-merged", modes=FIXED, multiply=products.star, summing=sums.merged, keep=False, dsp=True),
        Recipe(name="fixed-star", modes=FIXED, multiply=products.star, summing=sums.tree),
        Recipe(name="fixed-rows", modes=FIXED, multiply=products.rows, summing=sums.tree),
        Recipe(name="fixed-booth", modes=FIXED, multiply=products.booth, summing=sums.tree),
        Recipe(name="magnitude-star", modes=MAGNITUDE, multiply=products.star, summing=sums.chain),
        Recipe(name="shift-rows", modes=FLOATING, multiply=products.rows, summing=sums.tree),
        Recipe(name="shift-tree", modes=FLOATING, multiply=products.star, summing=sums.tree),
        Recipe(name="shift-signed", modes=FLOATING, multiply=products.star, summing=sums.tree, negation=Negation.EARLY),
        Recipe(
            name="shift-fill", modes=FLOATING, multiply=products.star, summing=sums.tree, negation=Negation.COMPLEMENT, dsp=True
        ),
        Recipe(name="table", modes=None, multiply=products.star, summing=sums.tree),
    )
}


def fabric_recipes(w: Reading, a: Reading) -> tuple[Recipe, ...]:
    """Return the recipes that may be the smallest of LUTs alone for a pair: those that never were, where tried, are left out."""
    rooted = w.has_root or a.has_root
    bits = w.magnitude_bits + a.magnitude_bits
    narrow = min(side.magnitude_bits + side.signed for side in (w, a))
    whole = w.plain and a.plain
    wanted = {
        "fixed-star": whole or not _shifts(w, a),
        "fixed-rows": whole or narrow <= 2,
        # what is shared out to two sums would have to take its carry along
        "fixed-booth": (whole or bits <= FIXED_BITS) and narrow > 2 and not rooted,
        "magnitude-star": bits <= MAGNITUDE_BITS or narrow <= 2,
        "shift-rows": _shifts(w, a) and min(w.significand_bits, a.significand_bits) >= ROWS_BITS,
        "shift-tree": _shifts(w, a),
        "shift-signed": _shifts(w, a) and (w.signed or a.signed),
        "shift-fill": _shifts(w, a) and (w.signed or a.signed),
        "table": w.bits + a.bits <= TABLE_BITS and not rooted,
    }
    return tuple(RECIPES[name] for name, fits in wanted.items() if fits)


def dsp_recipes(w: Reading, a: Reading) -> tuple[Recipe, ...]:
    """Return the recipes in which a DSP slice may multiply: none where the product is too narrow for one."""
    widths = sorted((side.magnitude_bits + 1 for side in (w, a)), reverse=True)
    found = []
    if sum(widths) - 2 >= DSP_PRODUCT_BITS and widths[0] <= DSP_WIDTHS[0] and widths[1] <= DSP_WIDTHS[1]:
        found.append(RECIPES["fixed-merged"])
    if _shifts(w, a) and w.significand_bits + a.significand_bits >= DSP_PRODUCT_BITS:
        found.append(RECIPES["shift-fill"])
    return tuple(found)


def _shifts(w: Reading, a: Reading) -> bool:
    return bool(w.shift_bits or a.shift_bits)


def lane(m: Module, recipe: Recipe, weight: Value, activation: Value, w: Reading, a: Reading) -> Product:
    """Return one lane's product."""
    if recipe.modes is None:
        product = products.looked_up(m, weight, activation, w, a)
    else:
        of_weight = decode(m, weight, w, recipe.modes[0])
        of_activation = decode(m, activation, a, recipe.modes[1])
        product = products.multiplied(m, of_weight, of_activation, recipe.multiply, recipe.negation)
    if not recipe.keep:
        return product
    return replace(product, value=wired(m, product.value, keep=True))
