"""Models that a stage asks: chat by a server or by vLLM in this process, detectors by transformers or a server."""
