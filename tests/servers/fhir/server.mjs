// A FHIR R4 server for tests: on 127.0.0.1 only, in memory, with faults on demand. README.md says how to use it.
//   node server.mjs [--port N] [--options JSON] [--tied]      prints "listening <base url>" when it is ready
import http from 'node:http';
import { STATUS_CODES } from 'node:http';
import { gunzipSync, gzipSync } from 'node:zlib';
import { Bulk } from './bulk.mjs';
import { Bundles } from './bundles.mjs';
import { capabilityStatement, smartConfiguration } from './capability.mjs';
import { loadDefinitions } from './definitions.mjs';
import { Faults, strikeBefore } from './faults.mjs';
import { Interactions } from './interactions.mjs';
import { Refusal, asRefusal } from './outcomes.mjs';
import { Store } from './store.mjs';
import { Tokens, scopesOf } from './tokens.mjs';
import { Validator } from './validator.mjs';

const FHIR = 'application/fhir+json';
const OPEN = ['metadata', '.well-known/smart-configuration'];
const DEFAULTS = {
  validate: true, // refuse what the strict validator refuses
  referential: true, // refuse references to local resources that are not there
  refuseNumericIds: false,
  maxEntries: 500,
  maxBytes: 8 * 1024 * 1024,
  medplumLimits: false, // process bundles as Medplum does, with its limits
  clients: null, // {client id: {jwks: {keys}, scope}}: tokens are needed
  tokenSeconds: 300,
  fhirVersion: '4.0.1',
  interactions: ['transaction', 'batch'], // of the whole system, as the CapabilityStatement has them
  importDialect: 'azure', // or hapi
  bulk: { polls: 1, retryAfter: 1, filesOf: 1000, refuseHaste: false },
};

class Server {
  constructor(given) {
    this.definitions = loadDefinitions();
    this.validator = new Validator(this.definitions);
    this.types = this.definitions.resourceTypes().sort();
    this.options = { check: (resource) => this.validator.check(resource) };
    this.given = given;
    this.faults = new Faults();
    this.store = new Store(this.options);
    this.tokens = new Tokens(this.options);
    this.interactions = new Interactions(this.store, this.options, this.types);
    this.bundles = new Bundles(this.interactions, this.options);
    this.bulk = new Bulk(this.store, this.options, () => this.tokens.isOn);
    this.reset();
  }

  reset() {
    this.set({ ...DEFAULTS, ...this.given });
    this.log = [];
    this.store.clear();
    this.bulk.reset();
    this.interactions.forgetPages();
    this.tokens.expireAll();
    this.faults.set([]);
    this.faults.seed(0);
  }

  set(options) {
    const unknown = Object.keys(options).find((name) => !(name in DEFAULTS));
    if (unknown) throw new Refusal(400, 'value', `no option ${unknown}`);
    Object.assign(this.options, options, options.bulk && { bulk: { ...DEFAULTS.bulk, ...options.bulk } });
    if ('validate' in options) this.store.options.validate = options.validate ? this.options.check : undefined;
  }

  listen(port) {
    this.http = http.createServer((request, response) => this.handle(request, response));
    this.http.keepAliveTimeout = 60_000;
    this.http.listen(port, '127.0.0.1', () => {
      this.root = `http://127.0.0.1:${this.http.address().port}`;
      this.options.baseUrl = `${this.root}/fhir`;
      process.stdout.write(`listening ${this.options.baseUrl}\n`);
    });
  }

  async handle(request, response) {
    const url = new URL(request.url, this.root);
    let answer;
    try {
      const raw = await readBody(request, this.options.maxBytes);
      if (url.pathname.startsWith('/_')) answer = this.control(request.method, url.pathname, raw);
      else answer = await this.withFaults(request, url, raw);
    } catch (error) {
      const { status, outcome, headers } = asRefusal(error);
      answer = { status, resource: outcome, headers };
    }
    if (answer) send(request, response, answer);
  }

  control(method, path, raw) {
    if (path === '/_log') return { status: 200, json: this.log, headers: {} };
    if (path !== '/_control') throw new Refusal(404, 'not-found', 'no such path');
    if (method === 'POST') {
      const { reset, options, faults, seed, expireTokens } = JSON.parse(raw);
      if (reset) this.reset();
      if (options) this.set(options);
      if (faults) this.faults.set(faults);
      if (seed !== undefined) this.faults.seed(seed);
      if (expireTokens) this.tokens.expireAll();
    }
    const state = {
      counts: this.store.counts(),
      versions: this.store.versions(),
      tokens: this.tokens.issued,
      faults: this.faults.hits(),
    };
    return { status: 200, json: state, headers: {} };
  }

  async withFaults(request, url, raw) {
    const { method, headers } = request;
    const entry = {
      n: this.log.length,
      method,
      path: url.pathname,
      query: url.search,
      bytes: raw.length,
      headers: spoken(headers),
    };
    this.log.push(entry);
    const isPlain = OPEN.some((path) => url.pathname === `/fhir/${path}`) || url.pathname === '/auth/token';
    const fault = isPlain ? undefined : this.faults.draw(method, url.pathname);
    if (fault) entry.fault = fault.kind;
    try {
      if (fault && (await strikeBefore(fault, request.socket))) return undefined;
      const answer = await this.dispatch(request, url, raw, entry);
      entry.status = answer.status;
      if (fault?.kind === 'dropAfterCommit') {
        request.socket.destroy();
        return undefined;
      }
      return fault?.kind === 'truncate' ? { ...answer, truncate: true } : answer;
    } catch (error) {
      entry.status = asRefusal(error).status;
      throw error;
    }
  }

  async dispatch(request, url, raw, entry) {
    const { method, headers } = request;
    if (url.pathname === '/auth/token' && method === 'POST' && this.tokens.isOn) {
      const { status, body } = this.tokens.answer(raw.toString(), `${this.root}/auth/token`);
      return { status, json: body, headers: { 'Cache-Control': 'no-store' } };
    }
    if (!/^\/fhir(\/|$)/.test(url.pathname)) throw new Refusal(404, 'not-found', 'the base is /fhir');
    const path = decodeURIComponent(url.pathname.replace(/^\/fhir\/?/, ''));
    if (path === 'metadata')
      return { status: 200, resource: capabilityStatement(this.options, this.types, this.tokens.isOn), headers: {} };
    if (path === OPEN[1] && this.tokens.isOn)
      return { status: 200, json: smartConfiguration(this.options), headers: {} };
    const isForm = /^application\/x-www-form-urlencoded/.test(headers['content-type'] ?? '');
    const body = isForm ? raw.toString() : parseBody(method, headers, raw);
    if (body?.entry) entry.entries = body.entry.length;
    if (this.tokens.isOn) this.tokens.authorize(headers.authorization, scopesOf(method, path + url.search, body));
    return this.fhir(method, path, url, headers, body);
  }

  async fhir(method, path, url, headers, body) {
    const bulk = await this.bulk.answer({ method, path, query: url.searchParams, headers, body, url: url.href });
    if (bulk) return bulk;
    if (method === 'POST' && path === '') {
      if (body?.resourceType !== 'Bundle') throw new Refusal(400, 'invalid', 'the base takes bundles');
      return this.bundles.process(body, headers, () => this.faults.drawForEntry());
    }
    const isRead = method === 'GET' || path.includes('_search') || path.includes('$validate');
    const perform = () => this.interactions.perform({ method, url: path + url.search, body, headers });
    const answer = isRead ? await perform() : await this.store.exclusive(perform);
    return /return=minimal/.test(headers.prefer ?? '') && !isRead ? { ...answer, resource: undefined } : answer;
  }
}

/** The headers that a test may want to look at; a token is told by its presence only. */
function spoken(headers) {
  const names = ['content-type', 'content-encoding', 'accept', 'prefer', 'if-none-exist', 'if-match', 'user-agent'];
  const kept = Object.fromEntries(names.filter((name) => headers[name]).map((name) => [name, headers[name]]));
  return { ...kept, authorized: Boolean(headers.authorization) };
}

async function readBody(request, maxBytes) {
  const chunks = [];
  let total = 0;
  for await (const chunk of request) {
    total += chunk.length;
    if (total <= maxBytes) chunks.push(chunk);
  }
  if (total > maxBytes) throw new Refusal(413, 'too-long', `more than ${maxBytes} bytes`);
  const raw = Buffer.concat(chunks);
  if (request.headers['content-encoding'] !== 'gzip') return raw;
  try {
    return gunzipSync(raw, { maxOutputLength: maxBytes });
  } catch (error) {
    if (error.code === 'ERR_BUFFER_TOO_LARGE')
      throw new Refusal(413, 'too-long', `more than ${maxBytes} bytes unpacked`);
    throw new Refusal(400, 'invalid', 'not gzip');
  }
}

function parseBody(method, headers, raw) {
  const accept = headers.accept ?? '*/*';
  if (/xml/.test(accept) && !/json|\*/.test(accept)) throw new Refusal(406, 'not-supported', 'JSON only');
  if (!raw.length) {
    if (method === 'PUT') throw new Refusal(400, 'required', 'no body');
    return undefined;
  }
  if (!/^application\/(fhir\+json|json|json-patch\+json)\b/.test(headers['content-type'] ?? '')) {
    throw new Refusal(415, 'not-supported', `the content type is ${FHIR}`);
  }
  try {
    return JSON.parse(raw.toString('utf8'));
  } catch {
    throw new Refusal(400, 'structure', 'not JSON');
  }
}

function send(request, response, { status, resource, json, text, contentType, headers, truncate }) {
  const value = resource ?? json;
  let body = Buffer.from(text ?? (value === undefined ? '' : JSON.stringify(value)));
  const kind = contentType ?? (json === undefined ? `${FHIR}; charset=utf-8` : 'application/json');
  const made = { ...headers, ...(body.length && { 'Content-Type': kind }) };
  if (/\bgzip\b/.test(request.headers['accept-encoding'] ?? '') && body.length > 1024) {
    body = gzipSync(body, { level: 1 });
    made['Content-Encoding'] = 'gzip';
  }
  if (status !== 204) made['Content-Length'] = body.length;
  response.writeHead(status, STATUS_CODES[status], made);
  if (truncate) {
    response.write(body.subarray(0, Math.floor(body.length / 2)), () => request.socket.destroy());
    return;
  }
  response.end(request.method === 'HEAD' ? undefined : body);
}

function argument(name, otherwise) {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? otherwise : process.argv[at + 1];
}

new Server(JSON.parse(argument('options', '{}'))).listen(Number(argument('port', '0')));
// tied: it ends with the process that holds its input
if (process.argv.includes('--tied')) process.stdin.on('end', () => process.exit()).resume();
