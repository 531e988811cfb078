"""Dot products of codes with the accumulator that hardware would have: exact, of a fixed width, or floating in a stated order."""
