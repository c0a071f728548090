"""What operators use: the command line, the supervisor of `up`, the audit."""
