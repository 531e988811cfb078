"""Triton kernels for the codes of ``formats``, each with the reference that it is proved against.

Needs Triton (``pip install bitatlas[gpu]``) and torch; nothing outside this package imports it at its top. Kernels run on CUDA, or
slowly in Triton's interpreter where the environment has ``TRITON_INTERPRET=1`` before Triton is first imported.
"""

from formats.errors import require

require("triton", "hwmodels.gpu.kernels", "gpu")
