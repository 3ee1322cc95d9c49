"""Configs: read files, evaluate them safely, merge them, and remember where every key was set."""
