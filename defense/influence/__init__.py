"""The mathematics of scores: objectives, alignment, scorers."""
