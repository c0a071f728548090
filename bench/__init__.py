"""What Tallyhook promises of its speed, measured: `make bench`, or `python -m bench --help`."""
