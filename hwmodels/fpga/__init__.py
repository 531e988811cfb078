"""FPGA: generated arithmetic, its proof, its synthesised cost, and models of devices and pipelines built on that."""
