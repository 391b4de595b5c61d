// Resources in memory: versions, deletions, search with an index of identifiers, and transactions that can be undone.
import { randomUUID } from 'node:crypto';
import { core, router } from './medplum.mjs';
import { Refusal } from './outcomes.mjs';

const LOCAL = /^([A-Z][A-Za-z]+)\/([A-Za-z0-9\-.]{1,64})(?:\/_history\/[A-Za-z0-9\-.]{1,64})?$/;

/** Every literal reference below a node, with the path of its holder. */
export function* referencesOf(node, path) {
  if (!node || typeof node !== 'object') return;
  if (typeof node.reference === 'string') yield [node.reference, path];
  for (const [name, value] of Object.entries(node)) {
    yield* referencesOf(value, Array.isArray(node) ? `${path}[${name}]` : `${path}.${name}`);
  }
}

export class Store extends router.MemoryRepository {
  #identifiers = new Map(); // "Type|system|value" -> Set of ids
  #undo = undefined; // what takes a transaction back, newest last
  #written = []; // resources of the open transaction whose references are still to be checked
  #queue = Promise.resolve();

  /** @param {object} options `validate(resource)` gives issues; `referential` refuses references that lead nowhere */
  constructor(options) {
    super();
    this.options = options;
  }

  clear() {
    super.clear();
    this.#identifiers.clear();
  }

  counts() {
    const held = [...this.resources].filter(([, ids]) => ids.size);
    return Object.fromEntries(held.map(([type, ids]) => [type, ids.size]).sort());
  }

  versions() {
    let total = 0;
    for (const ids of this.history.values()) for (const all of ids.values()) total += all.length;
    return total;
  }

  *all(type) {
    for (const resource of this.resources.get(type)?.values() ?? []) yield resource;
  }

  has(type, id) {
    return this.resources.get(type)?.has(id) ?? false;
  }

  wasDeleted(type, id) {
    return !this.has(type, id) && (this.history.get(type)?.get(id)?.length ?? 0) > 0;
  }

  generateId() {
    return randomUUID();
  }

  /** Runs one task after the other, so that no request sees half of another's work. */
  exclusive(task) {
    const done = this.#queue.then(task);
    this.#queue = done.then(
      () => undefined,
      () => undefined,
    );
    return done;
  }

  /** Runs the callback; takes back all that it wrote when it throws or left a reference that leads nowhere. */
  async withTransaction(callback) {
    if (this.#undo) return callback(this);
    this.#undo = [];
    this.#written = [];
    try {
      const result = await callback(this);
      for (const resource of this.#written) this.#checkReferences(resource);
      return result;
    } catch (error) {
      for (const step of this.#undo.reverse()) step();
      throw error;
    } finally {
      this.#undo = undefined;
    }
  }

  // -- writing: every write of the base class ends in createResourceSync or deleteResource

  createResourceSync(resource, _options, update = false) {
    const made = JSON.parse(JSON.stringify(resource));
    const type = made.resourceType;
    made.id ??= this.generateId();
    this.#check(made, update);
    const before = this.#versionsOf(type, made.id);
    made.meta = { ...made.meta, versionId: String(before.length + 1), lastUpdated: new Date().toISOString() };
    this.#put(type, made.id, made);
    before.push(made);
    this.#undo?.push(() => before.pop());
    return structuredClone(made);
  }

  #check(resource, update) {
    const { resourceType: type, id } = resource;
    if (!update && this.has(type, id)) throw new Refusal(409, 'conflict', `${type}/${id} exists`);
    if (this.options.refuseNumericIds && /^[0-9]+$/.test(id)) {
      throw new Refusal(400, 'value', 'client-assigned ids must contain a letter');
    }
    const issues = this.options.validate?.(resource) ?? [];
    if (issues.length) {
      const outcome = { resourceType: 'OperationOutcome', issue: issues };
      throw new Refusal(422, 'invalid', issues[0].details?.text ?? 'invalid', { outcome });
    }
    if (this.#undo) this.#written.push(resource);
    else this.#checkReferences(resource);
  }

  #checkReferences(resource) {
    if (!this.options.referential) return;
    for (const [reference, path] of referencesOf(resource, resource.resourceType)) {
      const local = LOCAL.exec(reference);
      const known = local ? this.has(local[1], local[2]) || isSame(resource, local) : !reference.startsWith('urn:');
      if (!known) throw new Refusal(400, 'processing', `reference ${reference} leads nowhere`, { expression: path });
    }
  }

  #versionsOf(type, id) {
    if (!this.history.has(type)) this.history.set(type, new Map());
    const ids = this.history.get(type);
    if (!ids.has(id)) ids.set(id, []);
    return ids.get(id);
  }

  #put(type, id, resource) {
    if (!this.resources.has(type)) this.resources.set(type, new Map());
    const ids = this.resources.get(type);
    const before = ids.get(id);
    this.#index(before, (set) => set.delete(id));
    if (resource) ids.set(id, resource);
    else ids.delete(id);
    this.#index(resource, (set) => set.add(id));
    this.#undo?.push(() => {
      this.#index(resource, (set) => set.delete(id));
      if (before) ids.set(id, before);
      else ids.delete(id);
      this.#index(before, (set) => set.add(id));
    });
  }

  #index(resource, change) {
    for (const identifier of [resource?.identifier ?? []].flat()) {
      const key = `${resource.resourceType}|${identifier.system ?? ''}|${identifier.value ?? ''}`;
      if (!this.#identifiers.has(key)) this.#identifiers.set(key, new Set());
      change(this.#identifiers.get(key));
    }
  }

  async updateResource(resource, { ifMatch } = {}) {
    if (ifMatch && this.resources.get(resource.resourceType)?.get(resource.id)?.meta.versionId !== ifMatch) {
      throw new Refusal(412, 'conflict', 'If-Match names another version');
    }
    return this.createResourceSync(resource, undefined, true);
  }

  async deleteResource(type, id, { ifMatch } = {}) {
    const existing = this.resources.get(type)?.get(id);
    if (!existing) {
      if (this.wasDeleted(type, id)) return;
      throw new Refusal(404, 'not-found', `${type}/${id} is not known`);
    }
    if (ifMatch && existing.meta.versionId !== ifMatch)
      throw new Refusal(412, 'conflict', 'If-Match names another version');
    const versions = this.#versionsOf(type, id);
    const meta = { versionId: String(versions.length + 1), lastUpdated: new Date().toISOString() };
    this.#put(type, id, undefined);
    versions.push({ resourceType: type, id, meta, deleted: true });
    this.#undo?.push(() => versions.pop());
  }

  // -- reading

  async readResource(type, id) {
    const resource = this.resources.get(type)?.get(id);
    if (!resource) {
      if (this.wasDeleted(type, id)) throw new Refusal(410, 'deleted', `${type}/${id} was deleted`);
      throw new Refusal(404, 'not-found', `${type}/${id} is not known`);
    }
    return structuredClone(resource);
  }

  async readVersion(type, id, versionId) {
    const version = this.history
      .get(type)
      ?.get(id)
      ?.find((each) => each.meta.versionId === versionId);
    if (!version) throw new Refusal(404, 'not-found', `${type}/${id} has no such version`);
    if (version.deleted) throw new Refusal(410, 'deleted', 'this version is a deletion');
    return structuredClone(version);
  }

  async readHistory(type, id) {
    const versions = this.history.get(type)?.get(id);
    if (!versions?.length) throw new Refusal(404, 'not-found', `${type}/${id} is not known`);
    const entry = versions.map(({ deleted, ...resource }, index) => ({
      fullUrl: `${this.options.baseUrl}/${type}/${id}`,
      ...(deleted ? {} : { resource: structuredClone(resource) }),
      request: { method: deleted ? 'DELETE' : 'PUT', url: `${type}/${id}` },
      response: { status: deleted ? '204' : index ? '200' : '201', lastModified: resource.meta.lastUpdated },
    }));
    return { resourceType: 'Bundle', type: 'history', total: entry.length, entry: entry.reverse() };
  }

  /** The matches of a search, whole and in order; the base class adds what _include and _revinclude ask for. */
  searchSync(request) {
    const { resourceType: type, offset = 0, count } = request;
    const filters = (request.filters ?? []).map((filter) => withType(type, filter));
    const asked = { ...request, filters, count: undefined, offset: undefined };
    const held = this.resources.get(type);
    const narrowed = this.#candidates(type, filters, held);
    this.resources.set(type, narrowed);
    let found;
    try {
      found = super.searchSync(asked);
    } finally {
      if (held) this.resources.set(type, held);
      else this.resources.delete(type);
    }
    const all = found.entry ?? [];
    const page = all.slice(offset, count === undefined ? undefined : offset + count);
    return { resourceType: 'Bundle', type: 'searchset', total: all.length, entry: page.length ? page : undefined };
  }

  /** The resources that a filter on _id or identifier leaves, found without a walk through all of them. */
  #candidates(type, filters, held = new Map()) {
    let ids;
    for (const { code, operator, value } of filters) {
      if (operator !== core.Operator.EQUALS || value.includes('\\')) continue;
      if (code === '_id') ids = value.split(',');
      else if (code === 'identifier' && /^[^|,]+\|[^|,]+$/.test(value))
        ids = this.#identifiers.get(`${type}|${value}`) ?? [];
    }
    return ids ? new Map([...ids].filter((id) => held.has(id)).map((id) => [id, held.get(id)])) : held;
  }
}

function isSame(resource, local) {
  return resource.resourceType === local[1] && resource.id === local[2];
}

/** `patient=p1` means `patient=Patient/p1`; @medplum/core adds the type only where a parameter has a single target. */
function withType(type, filter) {
  const parameter = core.getSearchParameter(type, filter.code);
  if (parameter?.type !== 'reference' || filter.code !== 'patient') return filter;
  return {
    ...filter,
    value: filter.value
      .split(',')
      .map((each) => (each.includes('/') ? each : `Patient/${each}`))
      .join(),
  };
}
