// Bulk Data: $export as the Bulk Data Access guide has it, and $import in the forms of Azure and HAPI. Jobs are
// asynchronous: they are made at once, and reported as finished after a number of polls.
import { randomUUID } from 'node:crypto';
import { Refusal, asRefusal, outcomeOf } from './outcomes.mjs';
import { referencesOf } from './store.mjs';

const FORMATS = ['application/fhir+ndjson', 'application/ndjson', 'ndjson'];
const KICK_OFF = /^(?:Patient\/|Group\/([A-Za-z0-9\-.]+)\/)?\$export$/;
const LOOPBACK = ['127.0.0.1', 'localhost', '[::1]'];

export class Bulk {
  #jobs = new Map();

  constructor(store, options, isSecured) {
    this.store = store;
    this.options = options;
    this.isSecured = isSecured;
  }

  reset() {
    this.#jobs.clear();
  }

  /** The answer if the path (relative to the base) is one of bulk data, else undefined. */
  async answer({ method, path, query, headers, body, url }) {
    const kickOff = KICK_OFF.exec(path);
    if (kickOff && (method === 'GET' || method === 'POST'))
      return this.#export(path, kickOff[1], query, headers, body, url);
    if (path === '$import' && method === 'POST') return this.#import(headers, body, url);
    const id = path === '$import-poll-status' ? query.get('_jobId') : /^_jobs\/([^/]+)$/.exec(path)?.[1];
    if (id) return method === 'DELETE' ? this.#cancel(id) : this.#status(id);
    const file = /^_files\/([^/]+)\/([^/]+)$/.exec(path);
    if (file) return this.#file(file[1], file[2]);
    return undefined;
  }

  #requireAsync(headers) {
    if (!/respond-async/.test(headers.prefer ?? '')) {
      throw new Refusal(400, 'invalid', 'this operation needs the header Prefer: respond-async');
    }
  }

  #start(job, place) {
    const id = randomUUID();
    this.#jobs.set(id, { polls: 0, lastPoll: 0, ...job });
    return { status: 202, headers: { 'Content-Location': `${this.options.baseUrl}/${place(id)}` } };
  }

  // -- export

  #export(path, groupId, query, headers, body, url) {
    this.#requireAsync(headers);
    const asked = parametersOf(query, body);
    const format = asked._outputFormat?.[0] ?? FORMATS[0];
    if (!FORMATS.includes(format)) throw new Refusal(400, 'not-supported', '_outputFormat is NDJSON');
    const since = asked._since ? Date.parse(asked._since[0]) : -Infinity;
    if (Number.isNaN(since)) throw new Refusal(400, 'value', '_since is an instant');
    const types = asked._type?.flatMap((each) => each.split(','));
    const patients = path === '$export' ? undefined : this.#patients(groupId);
    const files = new Map();
    const output = [];
    for (const type of types ?? Object.keys(this.store.counts())) {
      const lines = [...this.store.all(type)]
        .filter(
          (resource) => Date.parse(resource.meta.lastUpdated) > since && (!patients || belongs(resource, patients)),
        )
        .map((resource) => JSON.stringify(resource));
      for (let start = 0; start < lines.length; start += this.options.bulk.filesOf) {
        const chunk = lines.slice(start, start + this.options.bulk.filesOf);
        const name = `${type}.${start / this.options.bulk.filesOf}.ndjson`;
        files.set(name, `${chunk.join('\n')}\n`);
        output.push({ type, name, count: chunk.length });
      }
    }
    const job = { kind: 'export', request: url, transactionTime: new Date().toISOString(), files, output };
    return this.#start(job, (id) => `_jobs/${id}`);
  }

  #patients(groupId) {
    if (!groupId) return new Set([...this.store.all('Patient')].map(({ id }) => `Patient/${id}`));
    if (!this.store.has('Group', groupId)) throw new Refusal(404, 'not-found', 'no such group');
    const group = this.store.resources.get('Group').get(groupId);
    return new Set((group.member ?? []).filter((member) => !member.inactive).map((member) => member.entity.reference));
  }

  #status(id) {
    const job = this.#jobs.get(id);
    if (!job) throw new Refusal(404, 'not-found', 'no such job');
    const { retryAfter, polls, refuseHaste } = this.options.bulk;
    const isHasty = refuseHaste && Date.now() - job.lastPoll < 1000 * retryAfter - 50;
    job.lastPoll = Date.now();
    const headers = { 'Retry-After': String(retryAfter) };
    if (isHasty) throw new Refusal(429, 'throttled', 'polled before the time of Retry-After', { headers });
    job.polls += 1;
    if (job.polls <= polls)
      return { status: 202, headers: { ...headers, 'X-Progress': `poll ${job.polls} of ${polls}` } };
    if (job.kind === 'import') return job.result(id);
    const output = job.output.map(({ name, ...rest }) => ({
      ...rest,
      url: `${this.options.baseUrl}/_files/${id}/${name}`,
    }));
    const { request, transactionTime } = job;
    const manifest = { transactionTime, request, requiresAccessToken: this.isSecured(), output, error: [] };
    return { status: 200, json: manifest, headers: { Expires: new Date(Date.now() + 3_600_000).toUTCString() } };
  }

  #file(id, name) {
    const text = this.#jobs.get(id)?.files?.get(name);
    if (text === undefined) throw new Refusal(404, 'not-found', 'no such file');
    return { status: 200, text, contentType: 'application/fhir+ndjson', headers: {} };
  }

  #cancel(id) {
    if (!this.#jobs.delete(id)) throw new Refusal(404, 'not-found', 'no such job');
    return { status: 202, headers: {} };
  }

  // -- import

  async #import(headers, body, url) {
    this.#requireAsync(headers);
    const named = (name) => body?.parameter?.filter((each) => each.name === name) ?? [];
    if (body?.resourceType !== 'Parameters') throw new Refusal(400, 'invalid', '$import takes Parameters');
    const format = valueOf(named('inputFormat')[0]);
    if (!FORMATS.includes(format)) throw new Refusal(400, 'value', 'inputFormat is application/fhir+ndjson');
    const inputs = named('input').map(({ part = [] }) => ({
      type: valueOf(part.find((each) => each.name === 'type')),
      url: valueOf(part.find((each) => each.name === 'url')),
    }));
    if (!inputs.length || inputs.some((input) => !input.type || !input.url))
      throw new Refusal(400, 'required', 'an input has type and url');
    if (inputs.some((input) => !LOOPBACK.includes(new URL(input.url).hostname)))
      throw new Refusal(400, 'value', 'files lie on loopback');
    const mode = valueOf(named('mode')[0]) ?? 'InitialLoad';
    const isAzure = this.options.importDialect === 'azure';
    if (isAzure && !['InitialLoad', 'IncrementalLoad'].includes(mode))
      throw new Refusal(400, 'value', 'mode is InitialLoad or IncrementalLoad');
    if (!isAzure && !named('storageDetail').length) throw new Refusal(400, 'required', 'storageDetail is required');
    const isUpsert = !isAzure || mode === 'IncrementalLoad';
    const reports = [];
    for (const input of inputs) reports.push(await this.#pull(input, isUpsert));
    const job = { kind: 'import', request: url, transactionTime: new Date().toISOString(), files: new Map() };
    job.result = isAzure ? (id) => azureResult(job, id, reports, this.options.baseUrl) : () => hapiResult(reports);
    return this.#start(job, (id) => (isAzure ? `_jobs/${id}` : `$import-poll-status?_jobId=${id}`));
  }

  async #pull({ type, url }, isUpsert) {
    const report = { type, url, count: 0, failures: [] };
    const answer = await fetch(url);
    if (!answer.ok) {
      report.failures.push(outcomeOf('not-found', `the file was answered with ${answer.status}`));
      return report;
    }
    for (const line of (await answer.text()).split('\n')) {
      if (!line.trim()) continue;
      const problem = await this.store.exclusive(() => this.#take(line, type, isUpsert));
      if (problem) report.failures.push(problem);
      else report.count += 1;
    }
    return report;
  }

  #take(line, type, isUpsert) {
    const { referential } = this.options;
    try {
      const resource = JSON.parse(line);
      if (resource.resourceType !== type) throw new Refusal(400, 'invalid', 'a resource of another type than the file');
      if (!resource.id) throw new Refusal(400, 'required', 'a resource without id');
      this.options.referential = false; // a bulk import takes the types in any order
      this.store.createResourceSync(resource, undefined, isUpsert);
      return undefined;
    } catch (error) {
      return error instanceof SyntaxError ? outcomeOf('invalid', 'not JSON') : asRefusal(error).outcome;
    } finally {
      this.options.referential = referential;
    }
  }
}

function azureResult(job, id, reports, baseUrl) {
  const error = reports
    .filter((report) => report.failures.length)
    .map((report) => {
      const name = `errors.${report.type}.ndjson`;
      job.files.set(name, `${report.failures.map((each) => JSON.stringify(each)).join('\n')}\n`);
      return {
        type: report.type,
        count: report.failures.length,
        inputUrl: report.url,
        url: `${baseUrl}/_files/${id}/${name}`,
      };
    });
  const output = reports.map(({ type, count, url }) => ({ type, count, inputUrl: url }));
  return {
    status: 200,
    json: { transactionTime: job.transactionTime, request: job.request, output, error },
    headers: {},
  };
}

function hapiResult(reports) {
  const failures = reports.flatMap((report) => report.failures);
  const total = reports.reduce((sum, report) => sum + report.count, 0);
  if (failures.length)
    throw new Refusal(500, 'processing', `${failures.length} resources failed`, { outcome: failures[0] });
  return {
    status: 200,
    json: outcomeOf('informational', `Job has completed: ${total} resources`, { severity: 'information' }),
    headers: {},
  };
}

function valueOf(parameter) {
  const name = Object.keys(parameter ?? {}).find((key) => key.startsWith('value'));
  return name && parameter[name];
}

function parametersOf(query, body) {
  const asked = {};
  for (const [name, value] of query) (asked[name] ??= []).push(value);
  for (const parameter of body?.parameter ?? []) (asked[parameter.name] ??= []).push(String(valueOf(parameter)));
  return asked;
}

/** Whether a resource is one of the patients or speaks of one: the compartment, by any reference. */
function belongs(resource, patients) {
  if (resource.resourceType === 'Patient') return patients.has(`Patient/${resource.id}`);
  for (const [reference] of referencesOf(resource, '')) if (patients.has(reference)) return true;
  return false;
}
