"""Pictures: where they come from, how they are kept, what a training sees of them."""
