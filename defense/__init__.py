"""Find the training samples that make a classifier easy to attack, and show whether treating them helps."""
