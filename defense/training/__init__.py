"""The training loop and its augmentation."""
