"""Speeds, as ratios to named rivals in the same run."""
