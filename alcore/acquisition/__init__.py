"""Which image to ask about next: one strategy a file; bigger scores are better, ties go to the lower row."""
