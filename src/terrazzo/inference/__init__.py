"""From images to class maps."""
