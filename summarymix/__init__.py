"""SummaryMixing encoders and pruned RNN-T for streaming and offline speech recognition."""
