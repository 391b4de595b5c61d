"""What a record is made of: from the event table to packed batches, and what is learned of it before the network is."""
