"""What the phases of the Action bring: their results, stored once and read back. Knows nothing of billing."""
