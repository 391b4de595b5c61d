"""Designs solved analytically: spending, bounds, events, patients, timing, power."""
