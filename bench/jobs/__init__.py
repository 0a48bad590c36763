"""The whole iris experiment as one types it, three commands each: train, evaluate on the test rows, predict from a file."""
