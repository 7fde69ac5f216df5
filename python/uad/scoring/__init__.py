"""score.py: images in, decisions, overlays and a report out. `run` scores, `watching` keeps on."""
