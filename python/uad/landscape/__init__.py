"""The loss around trained weights: how steep it is, and how much that depends on the direction."""
