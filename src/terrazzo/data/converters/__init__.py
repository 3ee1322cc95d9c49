"""From the layouts in which data sets are published to those that their declarations read."""
