// A policy whose every other pick throws: its words have to reach the balancer's log (cargo xtask languages).
import { policy } from "./sdk/trimtab.js";

let asked = 0;

function fail() {
  throw new RangeError("boom: größe");
}

export const picker = policy({
  pick(request, pool) {
    return asked++ % 2 === 1 ? fail() : pool.ready()[0];
  },
});
