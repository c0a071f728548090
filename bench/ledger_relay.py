"""`tallyhook` that knows the benchmark's jobs as well, so that its relay rings for their queue.

python -m bench.ledger_relay relay
"""

import bench.commands  # noqa: F401
from app.ops.cli import main

main()
