"""The integer format that a range of codes and a zero point make."""

from formats.errors import InvalidValueError

HIGHEST_BITS = 16


def integer_format(low: int, high: int, zero: int, where: str) -> str:
    """Return the name of the format of the codes ``low`` to ``high`` that stand for themselves minus ``zero``.

    Where the values are those of integers without a zero point, it is theirs: of signed codes less the lowest one, ``uint{b}``, of
    unsigned ones less the middle one, ``int{b}``. Such codes differ in their first bit alone. Raises ``InvalidValueError`` naming
    ``where`` for a range that is of no such format.
    """
    bits = (high - low).bit_length()
    if (low, high) not in _ranges(bits):
        limits = f"all of 1 to {HIGHEST_BITS} bits, or all but the lowest of signed ones"
        raise InvalidValueError(f"codes of an integer quantizer must be {limits}, not {low} to {high} ({where})")
    if not low <= zero <= high:
        raise InvalidValueError(f"zero point must be {low} to {high}, not {zero} ({where})")
    if low == -high:
        if zero:
            raise InvalidValueError(f"zero point of codes without the lowest must be 0, not {zero} ({where})")
        return "ternary" if bits == 2 else f"int{bits}_narrow"
    own, other = ("uint", "int") if low == 0 else ("int", "uint")
    if zero == 0:
        return f"{own}{bits}"
    if zero == (low or 2 ** (bits - 1)) and bits > 1:
        return f"{other}{bits}"
    return f"{own}{bits}_zero{zero}"


def _ranges(bits: int) -> list[tuple[int, int]]:
    """Return the lowest and highest code that ``bits`` bits may have."""
    if not 1 <= bits <= HIGHEST_BITS:
        return []
    half = 2 ** (bits - 1)
    unsigned, signed, narrow = (0, 2 * half - 1), (-half, half - 1), (1 - half, half - 1)
    return [unsigned] if bits == 1 else [unsigned, signed, narrow]
