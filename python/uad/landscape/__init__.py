"""The loss around trained weights: how steep it is, and how far that depends on the direction."""
