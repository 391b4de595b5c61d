// Batches, and transactions that happen whole or not at all (http.html#transaction of R4).
import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import { core } from './medplum.mjs';
import { splitOnce, toFailure, toResponse } from './interactions.mjs';
import { Refusal, asRefusal } from './outcomes.mjs';

const ORDER = ['DELETE', 'POST', 'PUT', 'PATCH', 'GET', 'HEAD'];

export class Bundles {
  constructor(interactions, options) {
    this.interactions = interactions;
    this.store = interactions.store;
    this.options = options;
  }

  /** @returns {Promise<{status, resource, headers}>} the response bundle, or throws a Refusal */
  async process(bundle, headers, entryFault) {
    const { type, entry = [] } = bundle;
    if (type !== 'batch' && type !== 'transaction')
      throw new Refusal(400, 'value', 'a bundle to process is a batch or a transaction');
    if (entry.length > this.options.maxEntries) {
      throw new Refusal(413, 'too-costly', `more than ${this.options.maxEntries} entries`);
    }
    const full = /return=representation/.test(headers.prefer ?? '');
    if (this.options.medplumLimits) {
      return this.store.exclusive(() => this.interactions.medplumBundle(structuredClone(bundle), headers));
    }
    const work = type === 'batch' ? () => this.#batch(entry, full, entryFault) : () => this.#transaction(entry, full);
    const made = await this.store.exclusive(work);
    return {
      status: 200,
      resource: { resourceType: 'Bundle', id: randomUUID(), type: `${type}-response`, entry: made },
      headers: {},
    };
  }

  async #batch(entries, full, entryFault) {
    const made = [];
    for (const [index, entry] of entries.entries()) {
      try {
        checkEntry(entry, index);
        const fault = entryFault?.();
        if (fault) throw new Refusal(fault.status, 'transient', 'injected fault');
        made.push(this.#answer(await this.#perform(entry, entry.request.url), full || isRead(entry)));
      } catch (error) {
        made.push(toFailure(error, textOf));
      }
    }
    return made;
  }

  async #transaction(entries, full) {
    entries.forEach(checkEntry);
    return this.store.withTransaction(async () => {
      const plan = this.#plan(entries);
      const places = new Map(
        plan.filter((step) => step.fullUrl && step.target).map((step) => [step.fullUrl, step.target]),
      );
      const made = [];
      const order = (step) => ORDER.indexOf(step.entry.request.method);
      for (const step of [...plan].sort((a, b) => order(a) - order(b))) {
        made[step.index] = await this.#step(step, places, full);
      }
      return made;
    });
  }

  async #step({ entry, index, url, existing, target }, places, full) {
    if (existing)
      return this.#answer(
        { status: 200, resource: existing, headers: { ETag: `W/"${existing.meta.versionId}"` } },
        full,
      );
    try {
      const resource = entry.resource && this.#resolve(entry.resource, places);
      if (resource && target) resource.id = target.split('/')[1];
      return this.#answer(await this.#perform({ ...entry, resource }, url, true), full || isRead(entry));
    } catch (error) {
      const { status, outcome, headers } = asRefusal(error);
      const issue = outcome.issue.map((each) => ({
        ...each,
        expression: [`Bundle.entry[${index}]`, ...(each.expression ?? [])],
      }));
      throw new Refusal(status, '', error.message, { outcome: { ...outcome, issue }, headers });
    }
  }

  /** What each entry is about: the resource that it makes, changes, or finds to exist. */
  #plan(entries) {
    const seen = new Set();
    return entries.map((entry, index) => {
      const step = { entry, index, fullUrl: entry.fullUrl, ...this.#target(entry, seen) };
      if (step.target && !step.existing && entry.request.method !== 'GET') {
        if (seen.has(step.target))
          throw new Refusal(400, 'duplicate', `${step.target} stands twice in the transaction`);
        seen.add(step.target);
      }
      return step;
    });
  }

  #target({ request, resource }, seen) {
    const { method, url, ifNoneExist } = request;
    const [path, query] = splitOnce(url, '?');
    if (method === 'POST' && !path.includes('/')) {
      if (ifNoneExist) {
        const condition = `${path}?${ifNoneExist}`;
        if (seen.has(condition)) throw new Refusal(412, 'duplicate', 'two entries with the same ifNoneExist');
        seen.add(condition);
        const existing = this.#only(condition);
        if (existing) return { existing, target: `${path}/${existing.id}`, url };
      }
      return { target: `${path}/${randomUUID()}`, url };
    }
    if (query && (method === 'PUT' || method === 'DELETE')) {
      const found = this.#only(url);
      const target = `${path}/${found?.id ?? resource?.id ?? randomUUID()}`;
      return { target, url: found || method === 'PUT' ? target : url };
    }
    return { target: path.includes('/') ? path : undefined, url };
  }

  #only(condition) {
    const found = this.store.searchSync(core.parseSearchRequest(condition)).entry ?? [];
    if (found.length > 1) throw new Refusal(412, 'multiple-matches', 'the condition has several matches');
    return found[0]?.resource;
  }

  /** The resource with references to other entries, and conditional references, replaced by what they mean. */
  #resolve(resource, places) {
    const replace = (node) => {
      if (Array.isArray(node)) return node.map(replace);
      if (!node || typeof node !== 'object') return places.get(node) ?? node;
      const made = {};
      for (const [name, value] of Object.entries(node)) made[name] = name === 'div' ? value : replace(value);
      if (typeof made.reference === 'string' && /^[A-Z][A-Za-z]+\?/.test(made.reference)) {
        const found = this.#only(made.reference);
        if (!found) throw new Refusal(412, 'not-found', 'a conditional reference has no match');
        made.reference = `${found.resourceType}/${found.id}`;
      }
      return made;
    };
    return replace(resource);
  }

  #perform({ request, resource }, url, keepsId = false) {
    const headers = {};
    if (request.ifMatch) headers['if-match'] = request.ifMatch;
    // in a transaction the plan has looked for a match, and the entry would not be carried out if there were one
    if (request.ifNoneExist) headers['if-none-exist'] = request.ifNoneExist;
    return this.interactions.perform({
      method: request.method,
      url,
      body: resource && structuredClone(resource),
      headers,
      keepsId,
    });
  }

  #answer(answer, full) {
    return toResponse(answer, { statusText: textOf(answer.status), full });
  }
}

function isRead({ request }) {
  return request.method === 'GET';
}

function textOf(status) {
  return STATUS_CODES[status] ?? '';
}

function checkEntry({ request, resource } = {}, index) {
  const expression = `Bundle.entry[${index}]`;
  if (!request?.method || !request.url)
    throw new Refusal(400, 'required', 'an entry has a request with method and url', { expression });
  if (!ORDER.includes(request.method)) throw new Refusal(400, 'value', 'no such method', { expression });
  if (['POST', 'PUT'].includes(request.method) && !resource)
    throw new Refusal(400, 'required', 'an entry has a resource', { expression });
}
