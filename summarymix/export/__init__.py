"""Trained models as files for other programs: ONNX for sherpa-onnx, and TorchScript."""
