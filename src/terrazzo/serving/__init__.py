"""Models behind an address: an HTTP API, a page, and a worker process that computes."""
