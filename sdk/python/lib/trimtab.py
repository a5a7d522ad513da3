"""What a policy in Python is made with. The contract behind it, at greater length: wit/*.wit.

    from trimtab import Policy, Pool, Request, export

    class FewestRequests(Policy):
        def pick(self, request: Request, pool: Pool) -> int | None:
            return min(pool.ready(), key=pool.active, default=None)

    Picker = export(FewestRequests)
"""

import json
from typing import Any, Literal, Optional, Sequence

from componentize_py_types import Err
from wit_world.exports.picker import Snapshot
from wit_world.imports import diagnostics
from wit_world.imports import pool as _pool
from wit_world.imports import request as _request

__all__ = ["Policy", "Pool", "Request", "export", "log", "note"]

_LEVELS = {"error": 0, "warn": 1, "info": 2, "debug": 3}


def log(level: Literal["error", "warn", "info", "debug"], message: str) -> None:
    """Writes a line to the balancer's log, at most 10 a second. `print` goes nowhere."""
    diagnostics.log(_LEVELS[level], message)


def note(reason: str) -> None:
    """The reason for the current pick, shown in the access log; at most 128 bytes."""
    diagnostics.note(reason)


class Request:
    """The request being decided. It is one object for all requests: keep nothing of it."""

    #: Hash of what the pool's `hash_on` names, by default the client's address. 64 bits.
    key: int
    #: 64 bits, fresh for each pick. The module `random` has the same sequence in every run.
    random: int
    client_hi: int
    client_lo: int
    #: 0, and 1, 2, ... for retries.
    attempt: int = 0
    #: Monotonic time in microseconds. The module `time` has no clock to read.
    now_us: int

    def header(self, name: str) -> Optional[str]:
        """The first field of this name."""
        return _request.header(name)

    def header_hash(self, name: str) -> Optional[int]:
        return _request.header_hash(name)

    def method(self) -> str:
        return _request.method()

    def authority(self) -> str:
        return _request.authority()

    def path(self) -> str:
        """Without the query."""
        return _request.path()

    def query(self) -> Optional[str]:
        return _request.query()

    def cookie(self, name: str) -> Optional[str]:
        return _request.cookie(name)

    def tried(self, index: int) -> bool:
        """Whether an earlier attempt went to this backend."""
        return self.attempt > 0 and _request.tried(index)

    def reject(self, status: int) -> None:
        """Refuses the request: `return request.reject(503)`."""
        _request.reject(status)


class Pool:
    """The backends of the last update, as parallel lists, with their live load."""

    def __init__(self, snapshot: Snapshot, request: Request) -> None:
        self.generation = snapshot.generation
        self.ids = snapshot.ids
        self.addresses = snapshot.addresses
        self.weights = snapshot.weights
        #: Slow start: percent of the weight.
        self.ramps = snapshot.ramps
        self.zones = snapshot.zones
        self.tiers = snapshot.tiers
        self.labels = [dict(labels) for labels in snapshot.labels]
        self.usable = [i for i, usable in enumerate(snapshot.usable) if usable]
        self._request = request

    def __len__(self) -> int:
        return len(self.ids)

    def ready(self) -> Sequence[int]:
        """Those to choose from, in order: usable, and not tried by this request unless all were. Not to be changed."""
        if self._request.attempt == 0:
            return self.usable
        return [i for i in self.usable if not _request.tried(i)] or self.usable

    def active(self, index: int) -> int:
        """Requests in flight to a backend. One number costs near 1 us here, a whole column little more."""
        return _pool.active(index)

    def active_total(self) -> int:
        return _pool.active_total()

    def active_all(self) -> list[int]:
        return _pool.active_all()

    def latency_us(self, index: int) -> int:
        return _pool.latency_us(index)

    def latency_us_all(self) -> list[int]:
        return _pool.latency_us_all()

    def throughput(self, index: int) -> int:
        return _pool.throughput(index)

    def throughput_all(self) -> list[int]:
        return _pool.throughput_all()

    def delegate(self, among: Sequence[int]) -> Optional[int]:
        """The host's choice among these: least connections of two random ones."""
        return _pool.delegate(list(among))

    def delegate_to(self, algorithm: str, among: Sequence[int]) -> Optional[int]:
        """The host's choice among these, by the name of a built-in policy."""
        return _pool.delegate_to(algorithm, list(among))


class Policy:
    """What a policy does. Only `pick` is required."""

    def configure(self, settings: dict[str, Any]) -> None:
        """Once, before all else: the policy's own table of the configuration. Raise ValueError to refuse it; the
        operator sees the message, and what served before keeps serving."""

    def update(self, pool: Pool) -> None:
        """Before the first pick and after each change of the pool. What takes long belongs here."""

    def pick(self, request: Request, pool: Pool) -> Optional[int]:
        """The index of the backend for this attempt; None for no opinion, then the host chooses."""
        raise NotImplementedError


def _tell(error: Exception) -> None:
    """An exception is only a trap to the host, so it is said first. By hand: the module `traceback` opens files."""
    places = []
    at = error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        places.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{at.tb_lineno} in {code.co_name}")
        at = at.tb_next
    diagnostics.log(0, f"{type(error).__name__}: {error} ({' < '.join(reversed(places[-4:]))})")


def export(policy: type[Policy]) -> type:
    """What the host calls. The app has to keep it under the name `Picker`."""

    yours = policy()
    request = Request()
    # Here and not in Picker, of which componentize-py makes a new one for each call.
    pool: Pool

    class Picker:
        def configure(self, config_json: str) -> None:
            try:
                yours.configure(json.loads(config_json))
            except ValueError as error:
                raise Err(str(error)) from None
            except Exception as error:
                _tell(error)
                raise

        def update(self, snapshot: Snapshot) -> None:
            nonlocal pool
            request.attempt = 0
            pool = Pool(snapshot, request)
            try:
                yours.update(pool)
            except Exception as error:
                _tell(error)
                raise

        def pick(
            self, key: int, random: int, client_hi: int, client_lo: int, attempt: int, now_us: int
        ) -> Optional[int]:
            request.key = key
            request.random = random
            request.client_hi = client_hi
            request.client_lo = client_lo
            request.attempt = attempt
            request.now_us = now_us
            try:
                return yours.pick(request, pool)
            except Exception as error:
                _tell(error)
                raise

    return Picker
