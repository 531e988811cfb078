"""Quantizers of the literature that are more than a registered format with scales; importing this makes their names known.

A new method is a new module here with a call of ``register_method``, imported below.
"""

from formats.methods import llm_fp4, lloyd_fit, pcdvq, tanq, trit_planes, twin_log

__all__ = ["llm_fp4", "lloyd_fit", "pcdvq", "tanq", "trit_planes", "twin_log"]
