"""Export of trained models for other programs: ONNX for sherpa-onnx, TorchScript for libtorch."""
