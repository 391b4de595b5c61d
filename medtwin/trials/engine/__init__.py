"""Many trials at once: batches, scenarios and their operating characteristics."""
