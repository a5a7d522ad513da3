// @ts-check
// Sticky sessions. ../README.md says what it does.
import { policy, utf8 } from "../../../sdk/js/lib/trimtab.js";

function fnv1a(text) {
  let hash = 0x811c9dc5;
  const bytes = utf8(text);
  for (let i = 0; i < bytes.length; i++) hash = Math.imul(hash ^ bytes.charCodeAt(i), 16777619);
  return hash >>> 0;
}

function leastLoaded(ready, pool) {
  const active = pool.activeAll();
  const { weights } = pool;
  return ready.reduce((best, i) => (active[i] * weights[best] < active[best] * weights[i] ? i : best));
}

export const picker = policy({
  pick(request, pool) {
    const ready = pool.ready();
    if (ready.length === 0) return null;
    const session = request.header("x-session");
    return session === null ? leastLoaded(ready, pool) : ready[fnv1a(session) % ready.length];
  },
});
