"""Training: recipes, the loop, checkpoints, runs."""
