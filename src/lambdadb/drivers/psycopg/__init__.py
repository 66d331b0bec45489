"""psycopg 3, synchronous and asynchronous."""
