"""A DWCP replica: the engine, its state machine, and the process that runs them."""
