"""The driver for Aurora PostgreSQL over the RDS Data API: HTTPS requests instead of connections."""
