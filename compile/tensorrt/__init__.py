"""TensorRT plans of ONNX that was verified on ONNX Runtime."""
