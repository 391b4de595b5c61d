"""Patient timelines: tokens, the temporal VAE, its Lightning module, generation."""
