"""The published experiment, written four ways: each module's `handler` is a Lambda handler.

All read `DATABASE_URL`, `TABLE`, `AURORA_TYPE` and `EXPERIMENT` from their environment. The
published function read its password from Secrets Manager first; that read is left out in all four,
so what differs is the connection alone.
"""
