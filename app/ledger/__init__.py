"""The job ledger: jobs that are kept in PostgreSQL until they have an outcome.

`states` says what a job can be, `enqueue` accepts one, `claim` and `finish` are the two ends of an
attempt, `executor` runs what was claimed, `relay` is the safety net, `ops` is what a person may do.
It knows nothing of customers or money.
"""
