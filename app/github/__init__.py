"""GitHub: who signed a delivery, and what follows from installations and purchases on its Marketplace."""
