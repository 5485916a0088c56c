"""What a subject does: one file per kind of work."""
