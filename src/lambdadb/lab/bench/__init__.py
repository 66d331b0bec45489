"""The published hot/cold experiment as a benchmark."""
