"""Sends each request to the backend with the fewest requests in flight."""

from typing import Optional

from trimtab import Policy, Pool, Request, export


class FewestRequests(Policy):
    def pick(self, request: Request, pool: Pool) -> Optional[int]:
        active = pool.active_all()
        return min(pool.ready(), key=lambda i: active[i], default=None)


Picker = export(FewestRequests)
