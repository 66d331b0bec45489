"""What an operator asks of a database, and what the answers mean. No function imports it."""
