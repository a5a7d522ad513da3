// What a policy in JavaScript is made with: `policy()` makes of your functions what the host calls, keeps the backends of
// the last update, and writes exceptions to the balancer's log. Types and documentation: trimtab.d.ts.
import { log as write, note } from "trimtab:policy/diagnostics@0.1.1";
import * as columns from "trimtab:policy/pool@0.1.1";
import * as asked from "trimtab:policy/request@0.1.1";

const LEVELS = { error: 0, warn: 1, info: 2, debug: 3 };

export function log(level, message) {
  write(LEVELS[level], String(message));
}

export { note };

export function utf8(text) {
  // QuickJS has no TextEncoder.
  return unescape(encodeURIComponent(text));
}

class Request {
  header(name) {
    return asked.header(name);
  }
  headerHash(name) {
    return asked.headerHash(name);
  }
  method() {
    return asked.method();
  }
  authority() {
    return asked.authority();
  }
  path() {
    return asked.path();
  }
  query() {
    return asked.query();
  }
  cookie(name) {
    return asked.cookie(name);
  }
  tried(index) {
    return this.attempt > 0 && asked.tried(index);
  }
  reject(status) {
    asked.reject(status);
    return null;
  }
}

class Pool {
  constructor(snapshot, request) {
    Object.assign(this, snapshot);
    this.length = snapshot.ids.length;
    this.request = request;
    this.usableIndices = [];
    for (let i = 0; i < this.length; i++) if (snapshot.usable[i]) this.usableIndices.push(i);
  }
  isReady(index) {
    return this.request.attempt === 0 ? this.usable[index] === 1 : this.ready().includes(index);
  }
  ready() {
    if (this.request.attempt === 0) return this.usableIndices;
    const untried = this.usableIndices.filter((index) => !this.request.tried(index));
    return untried.length === 0 ? this.usableIndices : untried;
  }
  active(index) {
    return columns.active(index);
  }
  latencyUs(index) {
    return columns.latencyUs(index);
  }
  throughput(index) {
    return columns.throughput(index);
  }
  activeTotal() {
    return columns.activeTotal();
  }
  activeAll() {
    return columns.activeAll();
  }
  latencyUsAll() {
    return columns.latencyUsAll();
  }
  throughputAll() {
    return columns.throughputAll();
  }
  delegate(among) {
    return columns.delegate(among);
  }
  delegateTo(algorithm, among) {
    return columns.delegateTo(algorithm, among);
  }
}

// An exception is only a trap to the host, so it is said first.
function told(work) {
  try {
    return work();
  } catch (error) {
    write(0, error instanceof Error ? `${error}\n${error.stack}` : String(error));
    throw error;
  }
}

export function policy(yours) {
  const request = new Request();
  let pool;
  return {
    // What it throws is the reason why the settings are refused.
    configure(json) {
      yours.configure?.(JSON.parse(json));
    },
    update(snapshot) {
      pool = new Pool(snapshot, request);
      request.attempt = 0;
      if (yours.update) told(() => yours.update(pool));
    },
    pick(key, random, clientHi, clientLo, attempt, nowUs) {
      request.key = key;
      request.random = random;
      request.clientHi = clientHi;
      request.clientLo = clientLo;
      request.attempt = attempt;
      request.nowUs = nowUs;
      return told(() => yours.pick(request, pool) ?? null);
    },
  };
}
