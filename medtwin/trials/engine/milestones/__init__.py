"""Trials with several endpoints, whose looks are milestones at which something is tested, decided and changed."""
