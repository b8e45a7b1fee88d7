"""What is decided without I/O: values, rules and state machines. No clock, no randomness, no logging."""
