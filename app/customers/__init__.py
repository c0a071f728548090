"""Customers: how they sign up, what belongs to them, and how they prove who they are."""
