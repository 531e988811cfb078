"""Post-training quantization: steps that each lower one kind of error, usable alone or in a row."""
