"""Fixtures of all tests: one PostgreSQL server per test process, started where it is first asked for."""

from integration.postgres import postgres_server

__all__ = ["postgres_server"]
