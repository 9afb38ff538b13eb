"""Training a network: the loop, and its state that goes on after a kill."""
