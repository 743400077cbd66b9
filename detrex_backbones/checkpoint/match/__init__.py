"""Which tensor of a file goes where in a model, and whether that is what was meant. Changes nothing."""
