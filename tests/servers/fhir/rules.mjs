// Rules of R4 that @medplum/core leaves out, each about one value: they give a list of texts, empty when all is well.

const DAY = /^([0-9]{4})-([0-9]{2})-([0-9]{2})/;
const ZONED = /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$/;
const BASE64 = /^(\s*[0-9a-zA-Z+/=]{4}\s*)+$/;
const ACTIVE =
  /^(script|form|iframe|object|embed|input|button|select|textarea|link|base|style|html|head|body|frame|frameset)$/i;
const VOID = /^(br|hr|img|col)$/;
const REFERENCE =
  /^(?:(?:https?:\/\/[^\s#?]*\/)?([A-Z][A-Za-z]+)\/[A-Za-z0-9\-.]{1,64}(?:\/_history\/[A-Za-z0-9\-.]{1,64})?)$/;

/** Faults of a primitive value that is a string of the right form as far as @medplum/core looks. */
export function primitiveFaults(type, value) {
  if (typeof value !== 'string') return [];
  const faults = [];
  if ((type === 'dateTime' || type === 'instant') && value.includes('T') && !ZONED.test(value))
    faults.push('a time has seconds and a zone');
  if (type === 'base64Binary' && value && !BASE64.test(value)) faults.push('not base64 in groups of four');
  if (['string', 'markdown'].includes(type) && /[\u0000-\u0008\u000b\u000c\u000e-\u001f]/.test(value))
    faults.push('control character');
  const day = ['date', 'dateTime', 'instant'].includes(type) && DAY.exec(value);
  if (day && new Date(Date.UTC(+day[1], +day[2] - 1, +day[3])).getUTCDate() !== +day[3])
    faults.push('a day that does not exist');
  return faults;
}

/** per-1: the end is not before the start, as instants where both have a time, else to the precision that both have. */
export function periodFaults({ start, end }) {
  if (typeof start !== 'string' || typeof end !== 'string') return [];
  const isTimed = start.includes('T') && end.includes('T');
  const shared = Math.min(start.split('T')[0].length, end.split('T')[0].length);
  const isBackwards = isTimed ? Date.parse(end) < Date.parse(start) : end.slice(0, shared) < start.slice(0, shared);
  return isBackwards ? ['per-1: the end is before the start'] : [];
}

/** The type that a literal reference names, or undefined. */
export function typeOfReference(reference) {
  return REFERENCE.exec(reference)?.[1];
}

/** Reference targets: `allowed` are the types of the element (empty: any), `contained` the holder's resources by id. */
export function referenceFaults({ reference, type }, allowed, contained) {
  if (typeof reference !== 'string') return [];
  const local = reference.startsWith('#');
  if (local && reference.length > 1 && !contained.has(reference.slice(1)))
    return ['ref-1: nothing is contained under this id'];
  const target = local ? contained.get(reference.slice(1))?.resourceType : typeOfReference(reference);
  if (!target) return [];
  const faults = [];
  if (allowed.length && !allowed.includes(target)) faults.push(`a ${target} is no target of this reference`);
  if (type && type !== target) faults.push('Reference.type is not the type of the target');
  return faults;
}

/** txt-1, txt-2 and the form of a narrative. */
export function narrativeFaults(div) {
  if (typeof div !== 'string') return ['no div'];
  if (!/^\s*<div\b[^>]*\bxmlns="http:\/\/www\.w3\.org\/1999\/xhtml"/.test(div))
    return ['not a div in the namespace of XHTML'];
  const faults = [];
  const open = [];
  for (const [, close, name, attributes, self] of div.matchAll(
    /<(\/?)([a-zA-Z][\w:-]*)((?:\s+[\w:-]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*(\/?)>/g,
  )) {
    if (ACTIVE.test(name) || /\son[a-z]+\s*=/i.test(attributes)) faults.push('txt-1: active content');
    if (close && open.pop() !== name) faults.push('elements do not nest');
    if (!close && !self) {
      if (VOID.test(name)) faults.push(`${name} is not closed`);
      else open.push(name);
    }
  }
  if (open.length) faults.push('an element is not closed');
  const hasContent = /<img\b/.test(div) || div.replace(/<[^>]*>/g, '').trim() !== '';
  return hasContent ? faults : [...faults, 'txt-2: nothing to read'];
}

/** Contained resources: ids that are there and unique, none within another, each referred to (dom-2, dom-3). */
export function containedFaults(resource) {
  const contained = resource.contained;
  if (!Array.isArray(contained)) return [];
  const faults = [];
  const ids = contained.map((each) => each?.id);
  if (ids.some((id) => !id)) faults.push('a contained resource has an id');
  if (new Set(ids).size < ids.length) faults.push('contained ids are unique');
  if (contained.some((each) => each?.contained)) faults.push('dom-2: contained in a contained resource');
  const spoken = new Set();
  collectStrings(resource, (name, text) => text.startsWith('#') && spoken.add(text));
  for (const each of contained) {
    let isSpeaking = false;
    collectStrings(each, (name, text) => name === 'reference' && text === '#' && (isSpeaking = true));
    if (!isSpeaking && !spoken.has(`#${each?.id}`)) faults.push('dom-3: nothing refers to a contained resource');
  }
  return faults;
}

/** Entries of a bundle: urls that are absolute and agree with the ids; a document holds what it refers to. */
export function bundleFaults({ type, entry = [] }) {
  const faults = [];
  const places = new Set();
  for (const { fullUrl, resource } of entry) {
    if (fullUrl === undefined) continue;
    places.add(fullUrl);
    if (fullUrl.includes('/_history/')) faults.push('bdl-8: fullUrl has no version');
    if (!/^(https?:\/\/|urn:(uuid|oid):)/.test(fullUrl)) faults.push('fullUrl is absolute');
    else if (
      resource?.id &&
      fullUrl.startsWith('http') &&
      fullUrl.split('/_history/')[0].split('/').pop() !== resource.id
    ) {
      faults.push('fullUrl does not agree with the id');
    }
  }
  const seen = entry
    .filter(({ fullUrl }) => fullUrl)
    .map(({ fullUrl, resource }) => `${fullUrl} ${resource?.meta?.versionId}`);
  if (type !== 'history' && new Set(seen).size < seen.length) faults.push('bdl-7: fullUrl twice');
  if (type === 'document') {
    collectStrings(entry[0]?.resource, (name, text) => {
      const isHere = places.has(text) || [...places].some((place) => place.endsWith(`/${text}`));
      if (name === 'reference' && !text.startsWith('#') && !isHere)
        faults.push('a document holds what its composition refers to');
    });
  }
  return faults;
}

/** Rules of single resource types that @medplum/core does not evaluate, or not rightly: org-1, obs-7, que-2, ras-2. */
export function resourceFaults(resource) {
  const { resourceType: type, code, component, item } = resource;
  if (type === 'Organization' && !resource.name && !resource.identifier) return ['org-1: a name or an identifier'];
  if (type === 'Observation' && Object.keys(resource).some((key) => key.startsWith('value'))) {
    const own = keysOf(code);
    return [component ?? []].flat().some((each) => keysOf(each?.code).some((key) => own.includes(key)))
      ? ['obs-7']
      : [];
  }
  if (type === 'RiskAssessment') {
    return [resource.prediction ?? []].flat().some((each) => each?.probabilityDecimal > 100)
      ? ['ras-2: at most 100']
      : [];
  }
  if (type === 'Questionnaire') {
    const ids = [];
    collectStrings(item, (name, text) => name === 'linkId' && ids.push(text));
    return new Set(ids).size < ids.length ? ['que-2: linkId twice'] : [];
  }
  return [];
}

function keysOf(concept) {
  return [concept?.coding ?? []].flat().map(({ system, code }) => `${system}|${code}`);
}

/** Objects, arrays and strings that hold nothing, which JSON in FHIR never has. */
export function emptyFaults(node) {
  if (node === '') return ['an empty string'];
  if (!node || typeof node !== 'object') return [];
  const values = Object.values(node);
  return values.length ? values.flatMap((value) => emptyFaults(value)) : ['an empty object or array'];
}

function collectStrings(node, visit, name = '') {
  if (typeof node === 'string') visit(name, node);
  else if (node && typeof node === 'object') {
    for (const [key, value] of Object.entries(node)) collectStrings(value, visit, Array.isArray(node) ? name : key);
  }
}
