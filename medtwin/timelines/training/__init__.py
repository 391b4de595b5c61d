"""The Lightning module, what watches it, and the likelihood of records under what it trained."""
