"""Sticky sessions. ../README.md says what it does."""

from typing import Optional, Sequence

from trimtab import Policy, Pool, Request, export


def fnv1a(text: str) -> int:
    hash = 0x811C9DC5
    for byte in text.encode():
        hash = ((hash ^ byte) * 16777619) & 0xFFFFFFFF
    return hash


def least_loaded(ready: Sequence[int], pool: Pool) -> int:
    active, weights = pool.active_all(), pool.weights
    best = ready[0]
    for i in ready:
        if active[i] * weights[best] < active[best] * weights[i]:
            best = i
    return best


class StickySessions(Policy):
    def pick(self, request: Request, pool: Pool) -> Optional[int]:
        ready = pool.ready()
        if not ready:
            return None
        session = request.header("x-session")
        if session is None:
            return least_loaded(ready, pool)
        return ready[fnv1a(session) % len(ready)]


Picker = export(StickySessions)
