"""Classification: one class for a whole picture."""
