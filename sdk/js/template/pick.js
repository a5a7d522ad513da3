// @ts-check
// Sends each request to the backend with the fewest requests in flight.
import { policy } from "./sdk/trimtab.js";

export const picker = policy({
  pick(request, pool) {
    const active = pool.activeAll();
    let best = null;
    for (const i of pool.ready()) if (best === null || active[i] < active[best]) best = i;
    return best;
  },
});
