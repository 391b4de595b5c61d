"""The network: encoder, decoder, and the heads that decide on events, numbers and times."""
