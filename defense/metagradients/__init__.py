"""Derivatives of the end of a training run by the weights of its samples: the mathematics of metagradients."""

VERSION = 1  # of the numbers that this code computes: raise it, and every stage on it has new keys
