"""Where a stage writes: a folder on disk or in object storage, and the answers of models that are kept there."""
