"""Finding images and labels in folders, and proposing a config for them."""
