"""The offline compiler: checkpoint → ONNX → precision → engine → verify → bundle. Imports engines, never server."""
