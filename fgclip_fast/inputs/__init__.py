"""What goes into a model: tokens, pixels, and the batch that carries both."""
