"""Commands of `prunebench` with a file of their own: what they take, and what they call."""
