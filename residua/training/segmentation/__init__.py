"""Segmentation: losses, scores, touching objects taken apart, several networks heard together."""
