"""Training that both models share; torch and Lightning.

A map of the room. `batches` come in an order that a resumed run continues; `callbacks` seed every step, stop on NaN and
time, `flops` counts operations; `checkpoints` hold all that a run needs to go on, and `preemption` leaves with one;
`loggers` write the table of metrics. Weights are averaged by `averaging`, or by `power_averages`, of which `snapshots`
chooses the width at the end; `sharding` divides them among processes. `threads` and `quiet` are about torch's threads
and messages.
"""
