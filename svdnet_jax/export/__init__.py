"""Trained networks as files that need nothing of this package: StableHLO and ONNX."""
