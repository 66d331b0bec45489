"""Fleets of execution environments against one database: simulated in virtual time, and real."""
