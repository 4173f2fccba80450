"""The settings of a run: choices, types, ranges, and how Hydra composes them."""
