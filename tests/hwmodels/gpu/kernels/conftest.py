"""Kernels run in Triton's interpreter here, which must be settled before the first of them is imported."""

import importlib
import os

import triton.language

os.environ["TRITON_INTERPRET"] = "1"
# torch has imported Triton already; the functions that Triton's own library has written in its language are to be interpreted too
for module in (triton.language.standard, triton.language.random, triton.language):
    importlib.reload(module)
