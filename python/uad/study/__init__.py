"""Studies: many trainings of one network under several losses, and what they show together."""
