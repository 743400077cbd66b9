"""What this library does, measured."""
