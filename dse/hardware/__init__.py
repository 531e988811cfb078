"""The network in the arithmetic that hardware has: whole numbers from the input's codes to the logits."""
