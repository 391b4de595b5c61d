"""One file per verb: the shell that joins the rooms, and owns configuration, output directories and provenance."""
