"""Find out whether scores order samples as influence by an inverse does."""
