"""Patient timelines: tokens, the temporal VAE, its Lightning module, generation. See docs/timelines.md, docs/twins.md.

A map of the room, each part importing those above it alone:

- `heads`: the distributions that all others draw from.
- `reading`: what a record is made of. `rows` reads an event table, `vocabulary` names its tokens, `scales`, `gaps`,
  `templates`, `identities` and `profile` hold what is learned of numbers, times, child rows and attributes; `spec` is
  all of that, fitted on training subjects. `sequences` keeps records as arrays on disk, `batches` packs them, `data`
  is the module.
- `network`: `net` from `layers`, `embedding`, `history`, `event_heads` and `time_heads`.
- `priors`: what z is drawn from, what it has in common with the attributes (`shift`), what can be read off it
  (`probes`).
- `generation`: `sampler` writes the records of a `tile`, with the numbers of `noise`, within `masks` and `bounds`;
  `generate` draws new subjects by `plans`; `records` turns timelines into events; `source` is the door of the
  baselines, too.
- `steering`: `counterfactual`, `continuation` and `interpolation` start from known records (`steer`).
- `baselines`: simpler laws behind the same door.
- `training`: `module` trains, `collapse` and `sample_metrics` watch it, `likelihood` asks what it trained.
"""
