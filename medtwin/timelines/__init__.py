"""Patient timelines: tokens, the temporal VAE, its Lightning module, generation. See docs/timelines.md, docs/twins.md.

A map of the room:

- What a record is made of: `rows` reads an event table, `vocabulary` names its tokens, `scales`, `gaps`, `templates`
  and `profile` hold what is learned of numbers, times, child rows and attributes; `spec` is all of that, fitted on
  training subjects. `sequences` keeps records as arrays on disk, `batches` packs them, `data` is the data module.
- The network: `net` from `layers`, `embedding`, `event_heads`, `time_heads` and the distributions of `heads`; `module`
  trains it, `collapse` and `sample_metrics` watch it, `likelihood` and `latents` ask it about records.
- `priors`: what z is drawn from. `baselines`: simpler laws behind the same door, `source`.
- Generation: `sampler` writes the records of a `tile`, with the numbers of `noise`, within the `masks`; `generate`
  draws new subjects by `plans`; `counterfactual`, `continuation` and `interpolation` start from known ones (`steer`);
  `records` turns timelines into events.
"""
