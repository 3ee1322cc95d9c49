"""Reading config files: bases, merging, variables, YAML and JSON with line numbers."""
