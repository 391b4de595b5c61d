// SMART Backend Services (SMART App Launch 2.2): a signed assertion buys a short-lived token with scopes.
import { createPublicKey, randomUUID, verify } from 'node:crypto';
import { Refusal } from './outcomes.mjs';

const ASSERTION = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
const ALGORITHMS = { RS384: {}, ES384: { dsaEncoding: 'ieee-p1363' } };
const MAX_LIFE_SECONDS = 300;
const VERBS = { GET: 'r', HEAD: 'r', POST: 'c', PUT: 'u', PATCH: 'u', DELETE: 'd' };

/** A refusal in the form of OAuth 2 (RFC 6749, section 5.2). */
class TokenError extends Error {
  constructor(error, description) {
    super(description);
    this.status = error === 'invalid_client' ? 401 : 400;
    this.body = { error, error_description: description };
  }
}

export class Tokens {
  #tokens = new Map(); // token -> {client, scopes, expires}
  #seen = new Map(); // client and jti -> when the assertion expires
  issued = 0;

  constructor(options) {
    this.options = options;
  }

  get isOn() {
    return Boolean(this.options.clients);
  }

  expireAll() {
    this.#tokens.clear();
  }

  /** The answer of the token endpoint: {status, body}. */
  answer(form, tokenUrl) {
    try {
      return { status: 200, body: this.#issue(new URLSearchParams(form), tokenUrl) };
    } catch (error) {
      if (!(error instanceof TokenError)) throw error;
      return { status: error.status, body: error.body };
    }
  }

  #issue(form, tokenUrl) {
    if (form.get('grant_type') !== 'client_credentials')
      throw new TokenError('unsupported_grant_type', 'client_credentials only');
    if (form.get('client_assertion_type') !== ASSERTION)
      throw new TokenError('invalid_request', 'client_assertion_type');
    const client = this.#authenticate(form.get('client_assertion') ?? '', tokenUrl);
    const scopes = (form.get('scope') ?? '').split(' ').filter(Boolean);
    const granted = (client.scope ?? 'system/*.cruds').split(' ');
    if (!scopes.length || !scopes.every((scope) => granted.some((other) => covers(other, scope)))) {
      throw new TokenError('invalid_scope', 'a scope that is not granted');
    }
    const token = randomUUID();
    const seconds = this.options.tokenSeconds;
    this.#tokens.set(token, { scopes, expires: Date.now() + 1000 * seconds });
    this.issued += 1;
    return { access_token: token, token_type: 'bearer', expires_in: seconds, scope: scopes.join(' ') };
  }

  #authenticate(assertion, tokenUrl) {
    const refuse = (why) => {
      throw new TokenError('invalid_client', why);
    };
    const [head, claims, signature, ...rest] = assertion.split('.');
    if (!signature || rest.length) refuse('not a signed token');
    const header = decode(head) ?? refuse('header');
    const payload = decode(claims) ?? refuse('claims');
    const client = this.options.clients[payload.iss] ?? refuse('unknown client');
    if (payload.sub !== payload.iss) refuse('sub is not iss');
    if (payload.aud !== tokenUrl) refuse('aud is not the token endpoint');
    const algorithm = ALGORITHMS[header.alg] ?? refuse('alg is RS384 or ES384');
    const jwk = client.jwks.keys.find((key) => key.kid === header.kid) ?? refuse('no key of this kid');
    const key = { key: createPublicKey({ key: jwk, format: 'jwk' }), ...algorithm };
    if (!verify('sha384', Buffer.from(`${head}.${claims}`), key, Buffer.from(signature, 'base64url')))
      refuse('signature');
    this.#checkTime(payload, refuse);
    return client;
  }

  #checkTime({ iss, exp, nbf, jti }, refuse) {
    const now = Date.now() / 1000;
    if (typeof exp !== 'number' || exp <= now) refuse('expired');
    if (exp > now + MAX_LIFE_SECONDS + 5) refuse('exp is more than five minutes ahead');
    if (nbf !== undefined && nbf > now + 5) refuse('not valid yet');
    if (!jti) refuse('no jti');
    for (const [seen, until] of this.#seen) if (until < now) this.#seen.delete(seen);
    if (this.#seen.has(`${iss} ${jti}`)) refuse('jti was used before');
    this.#seen.set(`${iss} ${jti}`, exp);
  }

  /** Refuses a request without a token, or with one whose scopes do not reach as far. */
  authorize(authorization, needs) {
    const token = /^Bearer (.+)$/i.exec(authorization ?? '')?.[1];
    const held = this.#tokens.get(token);
    if (!held || held.expires <= Date.now()) {
      const headers = { 'WWW-Authenticate': `Bearer error="${token ? 'invalid_token' : 'invalid_request'}"` };
      throw new Refusal(401, 'login', token ? 'the token is not valid' : 'no token', { headers });
    }
    const missing = needs.find((need) => !held.scopes.some((scope) => covers(scope, need)));
    if (missing) {
      const headers = { 'WWW-Authenticate': 'Bearer error="insufficient_scope"' };
      throw new Refusal(403, 'forbidden', `needs the scope ${missing}`, { headers });
    }
  }
}

/** The scopes that a request needs; those of a bundle are those of its entries. */
export function scopesOf(method, path, body) {
  const type = path.split(/[/?]/)[0];
  if (method === 'POST' && type === '') {
    return (body?.entry ?? []).flatMap(({ request }) =>
      scopesOf(request?.method ?? 'GET', request?.url ?? '', undefined),
    );
  }
  const isSearch = (method === 'GET' && !path.includes('/')) || path.includes('/_search');
  const isOperation = path.includes('$');
  const verb = isOperation ? (path.includes('$import') ? 'c' : 'r') : isSearch ? 's' : VERBS[method];
  return [`system/${/^[A-Z]/.test(type) ? type : '*'}.${verb}`];
}

/** Whether one scope holds another: system/*.cruds holds system/Patient.r; version 1 says read and write. */
export function covers(scope, other) {
  const [type, verbs] = parse(scope);
  const [otherType, otherVerbs] = parse(other);
  return (type === '*' || type === otherType) && [...otherVerbs].every((verb) => verbs.includes(verb));
}

function parse(scope) {
  const [, type, verbs] = /^system\/(\*|[A-Za-z]+)\.([a-z*]+)$/.exec(scope) ?? [undefined, '', '-'];
  return [type, { read: 'rs', write: 'cud', '*': 'cruds' }[verbs] ?? verbs];
}

function decode(part) {
  try {
    return JSON.parse(Buffer.from(part, 'base64url').toString('utf8'));
  } catch {
    return undefined;
  }
}
