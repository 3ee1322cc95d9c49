"""The pre-flight check: what is wrong with a data set, found before the first step."""
