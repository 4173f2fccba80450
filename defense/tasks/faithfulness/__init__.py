"""Find out whether scores foresee retraining."""
