"""What each op means, in eager PyTorch: the spec that every fast path is tested against, and the fallback."""
