"""FG-CLIP's ops; importing them loads torch and nothing else of the package."""
