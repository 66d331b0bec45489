"""PyMySQL, for synchronous and asynchronous engines."""
