"""X-Ray's daemon for tests, and pictures of the traces that it gets."""
