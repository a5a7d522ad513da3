// What a policy in JavaScript or TypeScript is made with. The contract behind it, at greater length: wit/*.wit.

/** What a policy does. Only `pick` is required. */
export interface Policy {
  /** Once, before all else: the policy's own table of the configuration. Throw an Error to refuse it; the operator sees
   * the message, and what served before keeps serving. */
  configure?(settings: Record<string, unknown>): void;
  /** Before the first pick and after each change of the pool. What takes long belongs here. */
  update?(pool: Pool): void;
  /** The index of the backend for this attempt; `null` or `undefined` for no opinion, then the host chooses. */
  pick(request: Request, pool: Pool): number | null | undefined;
}

/** What the host calls: `export const picker = policy({ ... })`. */
export interface Picker {
  configure(json: string): void;
  update(snapshot: Snapshot): void;
  pick(key: number, random: number, clientHi: number, clientLo: number, attempt: number, nowUs: number): number | null;
}

/** Makes what the host calls of what you wrote. An exception is written to the balancer's log and then is a fault. */
export function policy(yours: Policy): Picker;

/** Writes a line to the balancer's log, at most 10 a second. */
export function log(level: "error" | "warn" | "info" | "debug", message: string): void;
/** The reason for the current pick, shown in the access log; at most 128 bytes. */
export function note(reason: string): void;
/** The UTF-8 bytes of a text, as a string of one character for each byte. (There is no TextEncoder.) */
export function utf8(text: string): string;

/** The request being decided. It is one object for all requests: keep nothing of it.
 *
 * 64-bit numbers arrive as JavaScript numbers, exact up to 2^53 and rounded above. Rounded ones are as good for hashing
 * and for chance; equal numbers stay equal. */
export interface Request {
  /** Hash of what the pool's `hash_on` names, by default the client's address. */
  readonly key: number;
  /** Random, fresh for each pick. Math.random() has the same sequence in every run. */
  readonly random: number;
  readonly clientHi: number;
  readonly clientLo: number;
  /** 0, and 1, 2, ... for retries. */
  readonly attempt: number;
  /** Monotonic time in microseconds. Date.now() has no clock to read. */
  readonly nowUs: number;
  /** The first field of this name; `null`, and not `undefined`, when there is none. */
  header(name: string): string | null;
  headerHash(name: string): number | null;
  method(): string;
  authority(): string;
  /** Without the query. */
  path(): string;
  query(): string | null;
  cookie(name: string): string | null;
  /** Whether an earlier attempt went to this backend. */
  tried(index: number): boolean;
  /** Refuses the request: `return request.reject(503)`. */
  reject(status: number): null;
}

/** The backends of the last update, as parallel lists. */
export interface Snapshot {
  readonly generation: number;
  readonly ids: readonly number[];
  readonly addresses: readonly string[];
  readonly weights: readonly number[];
  /** Slow start: percent of the weight. */
  readonly ramps: ArrayLike<number>;
  readonly zones: readonly number[];
  readonly tiers: ArrayLike<number>;
  readonly usable: ArrayLike<number>;
  readonly labels: readonly (readonly [string, string])[][];
}

/** Requests in flight of this node and of the others, apart: for a policy that is built with `--world cluster-policy` in place of
 * `--world policy`, as `import * as nodes from "trimtab:policy/nodes@0.1.1"`. wit/nodes.wit says more. */
declare module "trimtab:policy/nodes@0.1.1" {
  /** Requests that this node has in flight to a backend. */
  export function ownActive(index: number): number;
  export function ownActiveAll(): readonly number[];
  /** Those of the other nodes, as they said last. */
  export function othersActive(index: number): number;
  export function othersActiveAll(): readonly number[];
  /** How many milliseconds ago they said that; 4294967295 if nobody says anything. */
  export function othersAgeMs(index: number): number;
  export function othersAgeMsAll(): readonly number[];
}

/** The backends, with their live load. */
export interface Pool extends Snapshot {
  readonly length: number;
  /** Whether a backend is one of `ready()`. */
  isReady(index: number): boolean;
  /** Those to choose from, in order: usable, and not tried by this request unless all were. Not to be changed. */
  ready(): readonly number[];
  /** Requests in flight to a backend. One number costs about 1 us here, a whole column little more. */
  active(index: number): number;
  activeTotal(): number;
  activeAll(): readonly number[];
  latencyUs(index: number): number;
  latencyUsAll(): readonly number[];
  throughput(index: number): number;
  throughputAll(): readonly number[];
  /** The host's choice among these: least connections of two random ones. */
  delegate(among: readonly number[]): number | null;
  /** The host's choice among these, by the name of a built-in policy. */
  delegateTo(algorithm: string, among: readonly number[]): number | null;
}
