"""The disease courses: each sets the ages at which it begins in a life (`begin`), and plans its `visits`."""
