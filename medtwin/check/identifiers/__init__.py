"""Identifiers of the source in files that are to leave: every text of every file, against hashes and patterns.

A map: `texts` gives the texts of a file of any kind, `words` their normal form, `patterns` what looks like an
identifier whoever's it is, `known` holds hashes of the source's own identifiers (`sources` collects them),
`birth_dates` asks whether dates of birth are the source's more often than chance has it, and `scan` does all of it.
What it says holds file, field, kind and a keyed hash, never a value.
"""
