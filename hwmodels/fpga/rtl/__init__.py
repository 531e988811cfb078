"""Multiply-accumulate units and requantizers as Amaranth designs, generated from the definitions of the formats."""
