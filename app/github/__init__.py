"""GitHub: what follows from installations and purchases on its Marketplace."""
