"""Samples: where they come from, how they are split, and the harm planted in them."""
