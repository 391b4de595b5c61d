// One interaction of the REST interface, alone or as an entry of a bundle, carried out by @medplum/fhir-router.
import { randomUUID } from 'node:crypto';
import { core, router } from './medplum.mjs';
import { Refusal, asRefusal, outcomeOf, withoutId } from './outcomes.mjs';

const PAGE = 20;
const MAX_PAGE = 1000;
const TYPE = /^[A-Z][A-Za-z]+$/;

export class Interactions {
  #router = new router.FhirRouter();
  #pages = new Map(); // token of a page that a search has yet to give -> its entries and what it needs to go on

  constructor(store, options, resourceTypes) {
    this.store = store;
    this.options = options;
    this.resourceTypes = new Set(resourceTypes);
  }

  /**
   * The answer to a request.
   * @param {{method, url, body, headers, keepsId}} request `url` is relative to the base, with its query;
   *   `keepsId`: the id of a resource to create is the server's own
   * @returns {Promise<{status, resource, headers}>} or throws a Refusal
   */
  async perform({ method, url, body, headers = {}, keepsId = false }) {
    const [path, query = ''] = splitOnce(url, '?');
    const [type, id] = path.split('/');
    if (type && !type.startsWith('_') && !this.resourceTypes.has(type)) {
      throw new Refusal(404, 'not-supported', `no resource type ${TYPE.test(type) ? type : 'of this name'}`);
    }
    if (method === 'GET' && !id) return this.#search(type, new URLSearchParams(query));
    if (method === 'POST' && id === '_search') return this.#search(type, new URLSearchParams(`${query}&${body}`));
    if (method === 'POST' && id === '$validate') return this.#validate(body);
    if (method === 'POST' && !keepsId) delete body?.id;
    const existed = method === 'PUT' && id ? this.store.has(type, id) : true;
    const [outcome, resource] = await this.#route({ method, url, body, headers });
    let status = core.getStatus(outcome);
    if (status >= 400)
      throw new Refusal(status, '', outcome.issue[0].details?.text ?? '', { outcome: withoutId(outcome) });
    if (method === 'PUT' && !existed) status = 201;
    if (method === 'DELETE') return { status: 204, headers: {} };
    return { status, resource, headers: versionHeaders(resource, method === 'GET' ? undefined : this.options.baseUrl) };
  }

  async #route({ method, url, body, headers }) {
    const query = Object.create(null);
    const request = { method, url, pathname: '', body, params: {}, query, headers, config: { transactions: true } };
    const found = this.#router.find(method, url);
    if (!found) throw new Refusal(404, 'not-supported', `no interaction ${method} of this form`);
    if (found.query) request.query = found.query;
    request.params = found.params;
    request.pathname = found.path;
    if (method === 'GET') return found.handler(request, this.store, this.#router);
    return found.handler(request, this.store, this.#router, { assignedId: false });
  }

  /** Medplum's own processing of bundles, with its own limits (8 conditional entries, 50 updates). */
  async medplumBundle(body, headers) {
    const [outcome, resource] = await this.#route({ method: 'POST', url: '', body, headers });
    const status = core.getStatus(outcome);
    if (status >= 400)
      throw new Refusal(status, '', outcome.issue[0].details?.text ?? '', { outcome: withoutId(outcome) });
    return { status, resource, headers: {} };
  }

  async #search(type, query) {
    const token = query.get('_page');
    if (token) return this.#page(token);
    if (!type) throw new Refusal(400, 'not-supported', 'a search names a resource type');
    const asked = Number(query.get('_count') ?? PAGE);
    if (!Number.isInteger(asked) || asked < 0) throw new Refusal(400, 'value', '_count must be a whole number');
    const isCount = query.get('_summary') === 'count' || asked === 0;
    const self = `${this.options.baseUrl}/${type}?${query}`;
    for (const name of ['_count', '_total', '_summary', '_format']) query.delete(name);
    const request = core.parseSearchRequest(type, toRecord(query));
    this.#refuseUnknown(type, request);
    const matches = this.store.searchSync({ ...request, count: undefined, offset: undefined }).entry ?? [];
    if (isCount) return this.#bundle({ total: matches.length, self });
    return this.#cut({ matches, request, from: 0, count: Math.min(asked, MAX_PAGE), self, total: matches.length });
  }

  #refuseUnknown(type, request) {
    for (const filter of request.filters ?? []) {
      const name = filter.code.split(/[.:]/)[0];
      if (!core.getSearchParameter(type, name)) {
        throw new Refusal(400, 'not-supported', `${type} has no search parameter ${name}`);
      }
    }
  }

  #page(token) {
    const state = this.#pages.get(token);
    if (!state) throw new Refusal(410, 'expired', 'this page is no longer kept');
    return this.#cut(state);
  }

  async #cut(state) {
    const { matches, from, count, self, total, request } = state;
    const entry = matches.slice(from, from + count);
    const extra = [];
    if (request.include || request.revInclude) {
      await router.getExtraEntries(
        this.store,
        request,
        entry.map((each) => each.resource),
        extra,
      );
    }
    let next;
    if (from + count < matches.length) {
      const token = randomUUID();
      this.#pages.set(token, { ...state, from: from + count });
      next = `${this.options.baseUrl}?_page=${token}`;
    }
    return this.#bundle({ total, self, next, entry: [...entry, ...extra] });
  }

  #bundle({ total, self, next, entry }) {
    const link = [{ relation: 'self', url: self }, ...(next ? [{ relation: 'next', url: next }] : [])];
    const made = { resourceType: 'Bundle', id: randomUUID(), type: 'searchset', total, link };
    if (entry?.length) {
      made.entry = entry.map(({ resource, search }) => ({
        fullUrl: `${this.options.baseUrl}/${resource.resourceType}/${resource.id}`,
        resource,
        search: { mode: search?.mode ?? 'include' },
      }));
    }
    return { status: 200, resource: made, headers: {} };
  }

  #validate(body) {
    const resource =
      body?.resourceType === 'Parameters' ? body.parameter?.find((each) => each.name === 'resource')?.resource : body;
    if (!resource?.resourceType) throw new Refusal(400, 'required', 'nothing to validate');
    const issue = this.options.check(resource);
    const outcome = issue.length
      ? { resourceType: 'OperationOutcome', issue }
      : outcomeOf('informational', 'no issue found', { severity: 'information' });
    return { status: 200, resource: outcome, headers: {} };
  }

  forgetPages() {
    this.#pages.clear();
  }
}

/** The response element of a bundle for what `perform` gave. */
export function toResponse({ status, resource, headers }, { statusText, full }) {
  const response = { status: `${status} ${statusText}`.trim() };
  if (headers.ETag) response.etag = headers.ETag;
  if (resource?.meta?.lastUpdated && resource.id) {
    response.lastModified = resource.meta.lastUpdated;
    response.location = `${resource.resourceType}/${resource.id}/_history/${resource.meta.versionId}`;
  }
  return { ...(full && resource ? { resource } : {}), response };
}

/** The response element of a bundle for an entry that failed. */
export function toFailure(error, statusText) {
  const { status, outcome } = asRefusal(error);
  return { response: { status: `${status} ${statusText(status)}`.trim(), outcome } };
}

export function splitOnce(text, mark) {
  const at = text.indexOf(mark);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + mark.length)];
}

function versionHeaders(resource, baseUrl) {
  if (!resource?.meta?.versionId) return {};
  const headers = {
    ETag: `W/"${resource.meta.versionId}"`,
    'Last-Modified': new Date(resource.meta.lastUpdated).toUTCString(),
  };
  if (baseUrl)
    headers.Location = `${baseUrl}/${resource.resourceType}/${resource.id}/_history/${resource.meta.versionId}`;
  return headers;
}

function toRecord(query) {
  const record = {};
  for (const name of new Set(query.keys())) {
    const values = query.getAll(name);
    record[name] = values.length > 1 ? values : values[0];
  }
  return record;
}
