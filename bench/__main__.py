"""`python -m bench`: measure, show, and keep it in bench/results.json."""

import argparse
import signal
import sys

from bench import charges, drain, enqueueing, intake, memory, million, pickup, reconcile, recovery, system, webhooks
from bench.environment import Environment
from bench.report import RESULTS, Report

GROUPS = {
    "drain": drain.measure,
    "enqueue": enqueueing.measure,
    "intake": intake.measure,
    "pickup": pickup.measure,
    "recovery": recovery.measure,
    "million": million.measure,
    "memory": memory.measure,
    "system": system.measure,
    "charges": charges.measure,
    "webhooks": webhooks.measure,
    "reconcile": reconcile.measure,
}


def main() -> None:
    """Measure what Tallyhook promises of its speed, on this machine; all of it takes about half an hour.

    Uses the servers of DATABASE_URL and REDIS_URL if set, else those on this machine's usual ports, else
    embedded ones; there, scratch databases and an empty Redis database, gone afterwards. Each group that was measured
    takes its place in bench/results.json.
    """
    parser = argparse.ArgumentParser(prog="python -m bench", description=main.__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="NAME", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--quick", action="store_true", help="small numbers: shows that it runs, measures nothing")
    parser.add_argument("--sustained", type=int, default=60, metavar="SECONDS", help="of the steady load of webhooks")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything started is ended
    with Report() as report, Environment(report, options.quick, options.sustained) as env:
        for name in options.only or GROUPS:
            GROUPS[name](env)
            if not options.quick:
                report.write(name, env.machine)
    if not options.quick:
        print(f"written to {RESULTS.relative_to(RESULTS.parent.parent)}")


if __name__ == "__main__":
    main()
