"""Exported models in the hands of other programs: executed by qonnx, turned into hardware by hls4ml and FINN."""
