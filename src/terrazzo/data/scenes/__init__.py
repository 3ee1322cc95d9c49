"""Training straight from scenes: windows of them are samples, read as they are needed."""
