"""Tests and estimates of many trials at once, (trials, patients): each agrees with the room's function of one trial.

`survival_*` are of times to an event: `survival_order` puts patients in order, once for all tests of the same data.
"""
