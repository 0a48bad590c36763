"""The commands: each parses its options, calls the work, and prints. Nothing heavy is imported until one needs it."""
