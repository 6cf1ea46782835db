"""Triton kernels, one file an op; ``fgclip_fast.ops`` decides when they run."""
