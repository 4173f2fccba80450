"""Scores alone: nothing is treated, and no second model is trained."""
