"""A proxy that damages a conversation with PostgreSQL at a chosen place, and sweeps of such places."""
