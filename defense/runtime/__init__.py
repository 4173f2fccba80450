"""Devices, ranks, locks, checkpoints and progress: what computing stands on."""
