// Sends each request to the backend with the fewest requests in flight.
import { policy, type Pool, type Request } from "./sdk/trimtab.js";

export const picker = policy({
  pick(request: Request, pool: Pool): number | null {
    const active = pool.activeAll();
    let best: number | null = null;
    for (const i of pool.ready()) if (best === null || active[i] < active[best]) best = i;
    return best;
  },
});
