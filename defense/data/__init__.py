"""Samples: where they come from, how they are split, and the noise planted in them."""
