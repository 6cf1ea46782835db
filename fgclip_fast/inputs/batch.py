"""What a model sees in one step: tensors only, nothing padded."""
