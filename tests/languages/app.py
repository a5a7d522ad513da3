"""A policy whose every other pick raises: its words have to reach the balancer's log (cargo xtask languages)."""

from trimtab import Policy, export


def fail():
    raise LookupError("boom: größe")


class Raises(Policy):
    asked = 0

    def pick(self, request, pool):
        self.asked += 1
        return fail() if self.asked % 2 == 0 else pool.ready()[0]


Picker = export(Raises)
