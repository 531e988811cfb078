"""Architectures of a multiply-accumulate unit: how codes are presented, multiplied and summed.

The style decides the count of LUTs more than the format does, so a fair cost is the best recipe's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from amaranth import Module, Value

from hwmodels.fpga import candidates
from hwmodels.fpga.rtl import products, sums
from hwmodels.fpga.rtl.decode import Mode, decode
from hwmodels.fpga.rtl.operand import Reading
from hwmodels.fpga.rtl.products import Multiply, Negation, Product
from hwmodels.fpga.rtl.sums import Partial
from hwmodels.fpga.rtl.wires import wired

Summing = Callable[[Module, Sequence[Partial], Partial, int], Value]


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


FIXED, MAGNITUDE, FLOATING = (Mode.FIXED,) * 2, (Mode.MAGNITUDE,) * 2, (Mode.FLOATING,) * 2

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="fixed-merged", modes=FIXED, multiply=products.star, summing=sums.merged, keep=False),
        Recipe(name="fixed-star", modes=FIXED, multiply=products.star, summing=sums.tree),
        Recipe(name="fixed-rows", modes=FIXED, multiply=products.rows, summing=sums.tree),
        Recipe(name="fixed-booth", modes=FIXED, multiply=products.booth, summing=sums.tree),
        Recipe(name="magnitude-star", modes=MAGNITUDE, multiply=products.star, summing=sums.chain),
        Recipe(name="shift-rows", modes=FLOATING, multiply=products.rows, summing=sums.tree),
        Recipe(name="shift-tree", modes=FLOATING, multiply=products.star, summing=sums.tree),
        Recipe(name="shift-signed", modes=FLOATING, multiply=products.star, summing=sums.tree, negation=Negation.EARLY),
        Recipe(name="shift-fill", modes=FLOATING, multiply=products.star, summing=sums.tree, negation=Negation.COMPLEMENT),
        Recipe(name="table", modes=None, multiply=products.star, summing=sums.tree),
    )
}


def fabric_recipes(w: Reading, a: Reading) -> tuple[Recipe, ...]:
    """Return the recipes that may be the smallest of LUTs alone for a pair."""
    return tuple(RECIPES[name] for name in candidates.fabric_names(w, a))


def dsp_recipes(w: Reading, a: Reading) -> tuple[Recipe, ...]:
    """Return the recipes in which a DSP slice may multiply: none where the product is too narrow for one."""
    return tuple(RECIPES[name] for name in candidates.dsp_names(w, a))


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
