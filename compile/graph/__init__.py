"""What is done to an exported ONNX graph before a precision is derived from it; every rewrite is exact in float32."""
