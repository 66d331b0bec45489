"""The experiment on Lambda: its functions, their log, and what AWS knows of its clusters."""
