"""One element: how each kind of format rounds a scaled number, reads the code off a level, and gets the level back.

Numbers are float32 bits without sign, held in int32, clipped to the largest level. Everything is 32 bits wide, so that loops
over these functions vectorise; shifts by a variable are masked for the same reason.
"""

import numpy as np

from formats.compiled import compiled

MAGNITUDE = np.int32(0x7FFFFFFF)
SIGN = np.int32(-0x80000000)
EXPONENT = np.int32(0x7F800000)
MANTISSA = np.int32(0x007FFFFF)
ONE = np.int32(0x3F800000)
INFINITY = EXPONENT
PLACES = np.int32(31)

ROUND_TO_INTEGER = np.float32(1.5 * 2**23)  # adding it leaves no bit below the units, rounded to nearest even
# float32 mantissas of the powers of two with exponents 1/2, 1/4 and 3/4: the first as float32 rounds it, all three as the
# smallest numbers above
ROOT_MANTISSA = np.int32(0x3504F3)
HALF_STEP = np.int32(0x3504F4)
QUARTER_STEP = np.int32(0x1837F1)
THREE_QUARTERS_STEP = np.int32(0x5744FD)
# added to the bits of a number, these carry into the exponent from the half step, or the last quarter of an octave, on
TO_OCTAVE = np.int32(0x800000 - HALF_STEP)
TO_HALF_OCTAVE = np.int32(0x800000 - THREE_QUARTERS_STEP)


@compiled
def float_bits(x):  # type: ignore[no-untyped-def]
    """Return the bits of a float32 as int32."""
    return np.float32(x).view(np.int32)


@compiled
def as_float(bits):  # type: ignore[no-untyped-def]
    """Return the float32 with these bits."""
    return np.int32(bits).view(np.float32)


@compiled
def positive_bits(bits, mask):  # type: ignore[no-untyped-def]
    """Return the magnitude where ``mask`` is ``MAGNITUDE``; where it is -1, the number itself if it is positive, else 0."""
    return max(np.int32(bits & mask), np.int32(0))


@compiled
def uniform_level(c):  # type: ignore[no-untyped-def]
    """Round to a whole number."""
    return np.float32(np.float32(c + ROUND_TO_INTEGER) - ROUND_TO_INTEGER)


@compiled
def uniform_code(c, zero, mask):  # type: ignore[no-untyped-def]
    """Return the whole number nearest to ``c``, plus the code of zero, in two's complement."""
    return np.int32(np.int32(float_bits(np.float32(c + ROUND_TO_INTEGER)) + zero) & mask)


@compiled
def binade(magnitude, first_normal):  # type: ignore[no-untyped-def]
    """Return the power of two at or below a magnitude, not below the smallest normal number; all three as bits."""
    return max(np.int32(magnitude & EXPONENT), first_normal)


@compiled
def floating_bits(magnitude, first_normal, dropped_exponent):  # type: ignore[no-untyped-def]
    """Round: add and take away a power of two whose last place is the format's last place at the number's own exponent."""
    magic = as_float(binade(magnitude, first_normal) + dropped_exponent)
    return float_bits(np.float32(np.float32(as_float(magnitude) + magic) - magic))


@compiled
def floating_code(magnitude, first_normal, dropped_exponent, dropped):  # type: ignore[no-untyped-def]
    """Return the magnitude's code: steps within the binade, counted by the same sum, and the binades below."""
    power = binade(magnitude, first_normal)
    magic = np.int32(power + dropped_exponent)
    steps = np.int32(float_bits(np.float32(as_float(magnitude) + as_float(magic))) - magic)
    return np.int32(np.int32(np.int32(power - first_normal) >> (dropped & PLACES)) + steps)


@compiled
def shortened_bits(magnitude, dropped):  # type: ignore[no-untyped-def]
    """Round to nearest even at the place where float32's mantissa is cut off."""
    odd = np.int32(np.int32(magnitude >> (dropped & PLACES)) & np.int32(1))
    last_place = np.int32(np.int32(1) << (dropped & PLACES))
    half = np.int32(np.int32(last_place >> np.int32(1)) - np.int32(1))
    return np.int32(np.int32(magnitude + half + odd) & np.int32(-last_place))


@compiled
def octave_bits(magnitude, first):  # type: ignore[no-untyped-def]
    """Round a magnitude of at most 1 to the power of two nearest in the log domain; zero below ``first``."""
    rounded = np.int32(np.int32(magnitude + TO_OCTAVE) & EXPONENT)
    return rounded if magnitude >= first else np.int32(0)


@compiled
def half_octave_bits(magnitude, first):  # type: ignore[no-untyped-def]
    """Do the same for powers of the square root of two, each as float32 carries it."""
    moved = np.int32(magnitude + TO_HALF_OCTAVE)
    half = ROOT_MANTISSA if np.int32(moved & MANTISSA) >= np.int32(QUARTER_STEP + TO_HALF_OCTAVE) else np.int32(0)
    rounded = np.int32(np.int32(moved & EXPONENT) | half)
    return rounded if magnitude >= first else np.int32(0)


@compiled
def steps_below_one(bits, steps):  # type: ignore[no-untyped-def]
    """Return how many steps a level of a logarithmic format lies below 1."""
    octaves = np.int32(np.int32(127) - np.int32(bits >> np.int32(23)))
    half = np.int32(1) if np.int32(bits & MANTISSA) != 0 else np.int32(0)
    return np.int32(octaves * steps - half)


@compiled
def logarithmic_bits(below, steps):  # type: ignore[no-untyped-def]
    """Return the bits of the level that many steps below 1."""
    half = np.int32(below & np.int32(steps - np.int32(1)))
    octaves = np.int32(np.int32(below + half) >> (np.int32(steps - np.int32(1)) & PLACES))
    return np.int32(np.int32(ONE - np.int32(octaves << np.int32(23))) | np.int32(half * ROOT_MANTISSA))
