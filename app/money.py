"""Money as a reader sees it. Everywhere else it is an integer of cents (law 11)."""


def dollars(cents: int) -> str:
    """1500 as "$15.00"."""
    whole, rest = divmod(abs(cents), 100)
    return f"{'-' if cents < 0 else ''}${whole:,}.{rest:02}"
