"""Collapse: whether generations of twins, each learned from the one before, forget what real patients are like.

A map: `lineage` reads the generations and the real anchors, `tokens` turns records into sequences, `ngrams` is check's
own model of them, `perplexity` asks the model of a sample about real anchors and about the sample, `diversity` holds
Vendi score and coverage, `rare` counts rare codes, `jackknife` gives every number its interval by leaving out patients,
`alarm` says when a change is more than chance, and `suite` runs all of it. The rows that findings hold are in
`check.collapse_rows`.
"""
