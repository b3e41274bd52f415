"""The verdicts: one file an analysis, each judging what that analysis measured."""
