"""Joins a timeline to its scans: which image a record calls for, and how it is conditioned."""
