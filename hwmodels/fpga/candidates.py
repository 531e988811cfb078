"""Which recipes are worth a try for a pair: by name, without the hardware that they stand for."""

from hwmodels.fpga.formula_prices import DSP_NARROW, DSP_WIDE
from hwmodels.fpga.rtl.operand import Reading

#: bits of both codes up to which a table over both is tried
TABLE_BITS = 7
#: bits of both magnitudes up to which minifloats are tried as fixed-point numbers, by style; beyond, a shifter is smaller
FIXED_BITS = 16
MAGNITUDE_BITS = 9
#: bits of a significand from which rows are tried for it
ROWS_BITS = 4
#: bits of a product below which Yosys makes no use of a DSP slice
DSP_PRODUCT_BITS = 9


def fabric_names(w: Reading, a: Reading) -> tuple[str, ...]:
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
    return tuple(name for name, fits in wanted.items() if fits)


def dsp_names(w: Reading, a: Reading) -> tuple[str, ...]:
    """Return the recipes in which a DSP slice may multiply: none where the product is too narrow for one."""
    widths = sorted((side.magnitude_bits + 1 for side in (w, a)), reverse=True)
    found = []
    if sum(widths) - 2 >= DSP_PRODUCT_BITS and widths[0] <= DSP_WIDE and widths[1] <= DSP_NARROW:
        found.append("fixed-merged")
    if _shifts(w, a) and w.significand_bits + a.significand_bits >= DSP_PRODUCT_BITS:
        found.append("shift-fill")
    return tuple(found)


def _shifts(w: Reading, a: Reading) -> bool:
    return bool(w.shift_bits or a.shift_bits)
