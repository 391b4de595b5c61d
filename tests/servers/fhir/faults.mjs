// Faults on purpose, by count or by a seeded probability.
import { setTimeout as sleep } from 'node:timers/promises';
import { Refusal } from './outcomes.mjs';

const KINDS = ['status', 'drop', 'dropAfterCommit', 'slow', 'truncate', 'entry'];

/**
 * A fault: {kind, match, after, count, probability, status, retryAfter, retryAt, seconds}.
 *   kind         status: refuse with `status` before anything is done | drop: close the connection instead |
 *                dropAfterCommit: do the work, then close it without an answer | slow: wait `seconds` first |
 *                truncate: send half of the answer, then close | entry: refuse entries of batches with `status`
 *   match        a regular expression for "METHOD /path" (default: all but metadata, tokens and /_control)
 *   after, count let `after` requests pass, then fail `count` of them (default: all)
 *   probability  fail this share of the requests, drawn from the seed
 *   retryAfter   seconds of the Retry-After header; retryAt: the same as an HTTP date
 */
export class Faults {
  #faults = [];
  #random = generator(0);

  seed(seed) {
    this.#random = generator(seed);
  }

  set(faults) {
    this.#faults = faults.map((fault) => {
      const kind = fault.kind ?? 'status';
      if (!KINDS.includes(kind)) throw new Refusal(400, 'value', `no fault of kind ${kind}`);
      return {
        ...fault,
        kind,
        match: new RegExp(fault.match ?? '.'),
        left: fault.count ?? Infinity,
        toPass: fault.after ?? 0,
        hits: 0,
      };
    });
  }

  hits() {
    return this.#faults.map(({ kind, status, hits }) => ({ kind, status, hits }));
  }

  /** The fault that this request meets, or undefined. */
  draw(method, path) {
    return this.#faults.find(
      (fault) => fault.kind !== 'entry' && fault.match.test(`${method} ${path}`) && this.#strikes(fault),
    );
  }

  /** The fault that an entry of a batch meets, or undefined. */
  drawForEntry() {
    return this.#faults.find((fault) => fault.kind === 'entry' && this.#strikes(fault));
  }

  #strikes(fault) {
    if (fault.left <= 0) return false;
    if (fault.toPass > 0) {
      fault.toPass -= 1;
      return false;
    }
    if (fault.probability !== undefined && this.#random() >= fault.probability) return false;
    fault.left -= 1;
    fault.hits += 1;
    return true;
  }
}

/** What a fault does before the request is carried out. */
export async function strikeBefore(fault, socket) {
  if (fault.kind === 'slow') await sleep(1000 * (fault.seconds ?? 1));
  if (fault.kind === 'drop') {
    socket.destroy();
    return true;
  }
  if (fault.kind === 'status') {
    const headers = {};
    if (fault.retryAfter !== undefined) headers['Retry-After'] = String(fault.retryAfter);
    if (fault.retryAt !== undefined) headers['Retry-After'] = new Date(Date.now() + 1000 * fault.retryAt).toUTCString();
    throw new Refusal(fault.status ?? 503, 'transient', 'injected fault', { headers });
  }
  return false;
}

/** Numbers in [0, 1) from a seed: the mulberry32 generator of Tommy Ettinger (public domain). */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
