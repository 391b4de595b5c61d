"""Training that both models share: resumable batches, per-step seeds, preemption, loggers; torch and Lightning."""
