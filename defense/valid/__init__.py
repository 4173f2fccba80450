"""What is valid across the settings of a run: ranges and combinations."""
