"""Studies: many training runs of one network with several losses, and what they show together."""
