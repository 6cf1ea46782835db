"""Evaluation protocols, one file a suite."""
