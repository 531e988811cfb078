"""Quantized ONNX models made by others, read into a float network and an assignment.

``onnx_file`` reads the file, ``graph`` its operators, with one module for each way of writing quantizers (``qdq``, ``qonnx``,
``own_functions``); ``module`` makes a torch module of it, ``operators`` being the table, and ``assignments`` an assignment.
"""
