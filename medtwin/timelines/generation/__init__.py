"""New subjects: by plan, tile by tile, with noise that can be had again, within hard facts."""
