"""The questions that a run can ask, one file each: the order of its stages, and what it reports."""
