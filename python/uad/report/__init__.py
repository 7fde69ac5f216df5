"""report.html of a run, section by section. `page` puts it together."""
