"""The pre-flight check: mistakes in a data set, found before the first step."""
