"""Many images: listed, predicted some at a time, noted in a manifest, and split among machines."""
