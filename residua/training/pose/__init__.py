"""Pose: one heatmap a joint; targets, decoding, crops of people, scores and drawings."""
