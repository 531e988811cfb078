"""Which format goes where: quantized networks, their measured figures, the search over assignments, and export."""
