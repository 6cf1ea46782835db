"""The embedded data set: rendered scenes with captions, regions and hard negatives."""
