// Strict validation of R4 resources: structure and invariants by @medplum/core, and on top of it, from the official
// definitions, what it leaves out: required bindings, codes of systems that are at hand, invariants of data types,
// reference targets, contained resources, extensions of the core package, narratives, bundles, profiles, vital signs.
import { core } from './medplum.mjs';
import * as rules from './rules.mjs';
import { Terminology } from './terminology.mjs';
import { Vitals } from './vitals.mjs';

const CORE = 'http://hl7.org/fhir/StructureDefinition/';
const SIMPLE_QUANTITY = `${CORE}SimpleQuantity`;
// per-1 compares text in @medplum/core; ele-1 and ext-1 are checked there otherwise; txt-1 and txt-2 are htmlChecks()
const LEFT_OUT = new Set(['per-1', 'ele-1', 'txt-1', 'txt-2', 'dom-3', 'sdf-19']);
const PROMOTED = /^Conflicting choice/;
// what @medplum/core gets wrong, and rules.mjs and vitals.mjs get right: slices of the profile bp; bdl-8 where there is
// no fullUrl; ras-2 where the probability is a range
const UNTOLD = /slice '(SystolicBP|DiastolicBP)'|^Constraint (bdl-8|ras-2) /;

export class Validator {
  #cache = new core.LRUCache(2000);
  #trees = new Map(); // url of a definition -> its elements by path
  unevaluated = new Map(); // invariants that @medplum/core cannot evaluate, with the reason

  constructor(definitions) {
    this.definitions = definitions;
    this.terminology = new Terminology(definitions);
    this.vitals = new Vitals(definitions, this.terminology);
  }

  /** The errors of a resource as issues of an OperationOutcome; empty when it is valid. */
  check(resource) {
    const issues = [];
    const add = (text, path, code = 'invariant') =>
      issues.push({ severity: 'error', code, details: { text }, ...(path && { expression: [path] }) });
    const type = resource?.resourceType;
    if (!this.definitions.structure(type) || this.definitions.structure(type).abstract) {
      add('no such resource type', undefined, 'structure');
      return issues;
    }
    this.#structure(resource, undefined, issues);
    for (const text of rules.emptyFaults(resource)) add(text, undefined, 'structure');
    this.#resource(resource, type, { add, root: resource });
    for (const url of [resource.meta?.profile ?? []].flat()) {
      const profile = this.definitions.profiles.get(String(url).split('|')[0]);
      if (profile) this.#profile(profile, resource, issues, add);
    }
    for (const profile of this.vitals.profilesOf(resource)) {
      for (const text of this.vitals.faults(profile, resource))
        add(`${profile.name}: ${text}`, 'Observation', 'structure');
    }
    return issues;
  }

  #structure(resource, profile, issues, tokens) {
    let found;
    try {
      found = core.validateResource(resource, { ...(profile && { profile }), ...(tokens && { collect: { tokens } }) });
    } catch (error) {
      found = error.outcome?.issue ?? [
        { severity: 'error', code: 'structure', details: { text: `cannot be read: ${error.message}` } },
      ];
    }
    for (const issue of found) {
      const text = issue.details?.text ?? '';
      if (UNTOLD.test(text)) continue;
      const isPromoted = !profile && PROMOTED.test(text);
      if (issue.severity === 'error' || isPromoted)
        issues.push({ ...issue, severity: 'error', ...(profile && { diagnostics: profile.url }) });
    }
  }

  #profile(profile, resource, issues, add) {
    if (profile.type !== resource.resourceType) {
      add(`the profile ${profile.url} is for ${profile.type}`, undefined, 'structure');
      return;
    }
    const tokens = {};
    this.#structure(resource, profile, issues, tokens);
    for (const [valueSet, values] of Object.entries(tokens)) {
      for (const { type, value, path } of values) this.#bound(type, value, valueSet, path, add, profile.name);
    }
  }

  // -- a walk along the official definitions

  #tree(structure) {
    if (!this.#trees.has(structure.url)) {
      const byPath = new Map();
      for (const element of structure.snapshot.element) {
        const { path } = element;
        if (path.endsWith('[x]')) {
          for (const { code } of element.type)
            byPath.set(path.slice(0, -3) + code[0].toUpperCase() + code.slice(1), { element, code });
        } else byPath.set(path, { element, code: element.type?.[0]?.code });
      }
      this.#trees.set(structure.url, byPath);
    }
    return this.#trees.get(structure.url);
  }

  #resource(resource, at, context) {
    const structure = this.definitions.structure(resource?.resourceType);
    if (!structure) {
      context.add('no such resource type', at, 'structure');
      return;
    }
    const contained = new Map([resource.contained ?? []].flat().map((each) => [each?.id, each]));
    const inner = { ...context, contained: context.contained ?? contained, resource };
    for (const text of rules.containedFaults(resource)) context.add(text, at);
    if (resource.resourceType === 'Bundle') for (const text of rules.bundleFaults(resource)) context.add(text, at);
    for (const text of rules.resourceFaults(resource)) context.add(text, at);
    if (resource.id !== undefined && !/^[A-Za-z0-9\-.]{1,64}$/.test(resource.id))
      context.add('not an id', `${at}.id`, 'value');
    this.#node(resource, resource.resourceType, structure, at, inner);
  }

  #node(node, path, structure, at, context) {
    if (!node || typeof node !== 'object') return;
    const tree = this.#tree(structure);
    for (const [key, value] of Object.entries(node)) {
      const found = tree.get(`${path}.${key.replace(/^_/, '')}`);
      if (!found) continue; // @medplum/core tells of unknown elements
      const extra = key.startsWith('_');
      if (extra && !/^[a-z]/.test(found.code))
        context.add('only primitives have extra data', `${at}.${key}`, 'structure');
      for (const [index, item] of [value].flat().entries()) {
        const here = `${at}.${key}${Array.isArray(value) ? `[${index}]` : ''}`;
        if (extra) this.#node(item, 'Element', this.definitions.structure('Element'), here, context);
        else this.#value(item, found, structure, here, context);
      }
    }
  }

  #value(item, { element, code }, structure, at, context) {
    if (element.contentReference) {
      this.#node(item, element.contentReference.slice(1), structure, at, context);
    } else if (code === 'Resource') {
      const isContained = element.path.endsWith('.contained');
      this.#resource(item, at, isContained ? context : { ...context, contained: undefined });
    } else if (code === 'BackboneElement' || code === 'Element') {
      this.#node(item, element.path, structure, at, context);
    } else if (/^[a-z]/.test(code)) {
      for (const text of rules.primitiveFaults(code, item)) context.add(text, at, 'value');
    } else {
      this.#dataType(item, element, code, at, context);
    }
    this.#binding(item, element, code, at, context);
  }

  #dataType(item, element, code, at, context) {
    const type = this.definitions.structure(code);
    if (!type || !item || typeof item !== 'object') {
      if (type && item !== undefined) context.add(`${code} is an object`, at, 'structure');
      return;
    }
    this.#invariants(item, code, type, at, context);
    const add = (texts) => texts.forEach((text) => context.add(text, at));
    const described = element.type.find((each) => each.code === code);
    if (code === 'Period') add(rules.periodFaults(item));
    if (code === 'Narrative') add(rules.narrativeFaults(item.div));
    if (code === 'Reference') add(rules.referenceFaults(item, targetsOf(described), context.contained));
    if (code === 'Extension') add(this.#extensionFaults(item));
    if (described?.profile?.includes(SIMPLE_QUANTITY) && item.comparator) add(['sqty-1: no comparator here']);
    if (code === 'Coding' && this.terminology.has(item.system, item.code) === false)
      add([`${item.system} has no such code`]);
    this.#node(item, code, type, at, context);
  }

  #extensionFaults({ url, ...rest }) {
    if (typeof url !== 'string' || !url.startsWith(CORE)) return [];
    const profile = this.definitions.profiles.get(url);
    if (profile?.type !== 'Extension') return []; // there are extensions of HL7 that came after R4
    const value = profile.snapshot.element.find((element) => element.path === 'Extension.value[x]');
    const allowed =
      value.max === '0' ? [] : value.type.map(({ code }) => `value${code[0].toUpperCase()}${code.slice(1)}`);
    const given = Object.keys(rest).find((key) => key.startsWith('value'));
    return given && !allowed.includes(given) ? [`${given} is no value of this extension`] : [];
  }

  #invariants(item, code, type, at, context) {
    for (const { key, severity, expression } of type.snapshot.element[0].constraint ?? []) {
      if (severity !== 'error' || LEFT_OUT.has(key)) continue;
      const variables = {
        '%context': { type: code, value: item },
        '%resource': core.toTypedValue(context.resource),
        '%rootResource': core.toTypedValue(context.root),
        '%ucum': core.toTypedValue('http://unitsofmeasure.org'),
      };
      try {
        const [answer] = core.evalFhirPathTyped(expression, [{ type: code, value: item }], variables, this.#cache);
        if (answer?.value === false) context.add(`${key} of ${code}`, at);
      } catch (error) {
        this.unevaluated.set(key, error.message);
      }
    }
    if (code === 'Age') for (const text of ageFaults(item)) context.add(text, at);
    if ((code === 'Age' || code === 'Duration') && item.code !== undefined) {
      const isTime = this.terminology.contains(
        `http://hl7.org/fhir/ValueSet/${code.toLowerCase()}-units`,
        undefined,
        item.code,
      );
      if (isTime === false) context.add(`${code} is in a unit of time`, at);
    }
  }

  #binding(item, element, code, at, context) {
    const binding = element.binding;
    if (!binding?.valueSet) return;
    if (binding.strength === 'required') this.#bound(code, item, binding.valueSet, at, context.add, '');
    const most = binding.extension?.find((each) => each.url === `${CORE}elementdefinition-maxValueSet`)?.valueCanonical;
    if (most) this.#bound(code, item, most, at, context.add, '');
  }

  #bound(type, value, valueSet, at, add, origin) {
    const test = (coding) => this.terminology.contains(valueSet, coding.system, coding.code);
    let isIn;
    if (type === 'CodeableConcept') {
      const codings = [value?.coding ?? []].flat();
      const answers = codings.map((coding) => test(coding ?? {}));
      isIn = answers.includes(true) || answers.includes(undefined) ? undefined : false;
    } else if (type === 'Coding' || type === 'Quantity') {
      isIn = value?.code === undefined ? undefined : test(value);
    } else if (typeof value === 'string') isIn = this.terminology.contains(valueSet, undefined, value);
    if (isIn === false) add(`${origin ? `${origin}: ` : ''}not in the value set ${valueSet}`, at, 'code-invalid');
  }
}

function ageFaults({ value }) {
  return typeof value === 'number' && value <= 0 ? ['age-1: above zero'] : [];
}

function targetsOf(described) {
  const targets = (described?.targetProfile ?? []).map((url) => url.split('/').pop());
  return targets.includes('Resource') || targets.some((each) => !/^[A-Z]/.test(each)) ? [] : targets;
}
