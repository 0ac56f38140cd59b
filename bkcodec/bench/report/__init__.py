"""What becomes of the results: summaries, curves, pictures, the terminal, one HTML page."""
