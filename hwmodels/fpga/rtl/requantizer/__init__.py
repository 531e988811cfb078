"""Requantizers: from an accumulator to a code, one result a clock cycle."""
