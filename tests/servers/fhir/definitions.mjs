// The official R4 definitions (hl7.fhir.r4.core 4.0.1), read once and handed to @medplum/core. Medplum ships
// definitions of its own with elements that R4 does not have, so none of them is used.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { core, coreFolder } from './medplum.mjs';

const BASE = 'http://hl7.org/fhir/StructureDefinition/';

/** What the packages define: types and profiles by canonical url, value sets and code systems by url. */
export class Definitions {
  structures = new Map();
  profiles = new Map();
  valueSets = new Map();
  codeSystems = new Map();
  searchParameters = [];

  /** Reads the files of an unpacked package whose names begin with one of the prefixes. */
  read(folder, prefixes) {
    for (const name of readdirSync(folder)) {
      if (!name.endsWith('.json') || !prefixes.some((prefix) => name.startsWith(prefix))) continue;
      this.add(JSON.parse(readFileSync(path.join(folder, name), 'utf8')));
    }
    return this;
  }

  add(resource) {
    const { resourceType, url } = resource;
    if (resourceType === 'ValueSet') this.valueSets.set(url, resource);
    else if (resourceType === 'CodeSystem') this.codeSystems.set(url, resource);
    else if (resourceType === 'SearchParameter') this.searchParameters.push(resource);
    else if (resourceType === 'StructureDefinition' && resource.snapshot && resource.kind !== 'logical') {
      (resource.derivation === 'constraint' ? this.profiles : this.structures).set(url, resource);
    }
  }

  /** The definition of a resource or data type, or undefined. */
  structure(type) {
    return this.structures.get(BASE + type);
  }

  resourceTypes() {
    return [...this.structures.values()]
      .filter((each) => each.kind === 'resource' && !each.abstract)
      .map((each) => each.type);
  }
}

/** The definitions of R4 with types and search parameters known to @medplum/core. */
export function loadDefinitions({ folder = coreFolder, guides = [], terminology = true } = {}) {
  if (!existsSync(folder)) throw new Error(`no R4 definitions under ${folder}: run scripts/peers`);
  const definitions = new Definitions();
  definitions.read(folder, [
    'StructureDefinition-',
    'SearchParameter-',
    ...(terminology ? ['ValueSet-', 'CodeSystem-'] : []),
  ]);
  for (const guide of guides) definitions.read(guide, ['StructureDefinition-', 'ValueSet-', 'CodeSystem-']);
  core.indexStructureDefinitionBundle([...definitions.structures.values()]);
  for (const parameter of definitions.searchParameters) {
    if (parameter.expression) core.indexSearchParameter(parameter);
  }
  return definitions;
}
