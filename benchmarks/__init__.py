"""One file a question; results/ holds what was measured, and on which machine."""
