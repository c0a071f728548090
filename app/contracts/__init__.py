"""What crosses a boundary, as Pydantic models: commands (job payloads), HTTP bodies, events."""
