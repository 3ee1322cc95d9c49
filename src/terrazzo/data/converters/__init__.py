"""Converters of data sets from the layouts in which they are published to those that their declarations read."""
