// What the server says that it can do.
import { core } from './medplum.mjs';

const INTERACTIONS = ['read', 'vread', 'update', 'delete', 'history-instance', 'create', 'search-type'];

export function capabilityStatement(options, resourceTypes, isSecured) {
  const root = options.baseUrl.replace(/\/fhir$/, '');
  const oauth = { url: 'token', valueUri: `${root}/auth/token` };
  return {
    resourceType: 'CapabilityStatement',
    id: 'server',
    status: 'active',
    date: '2025-01-01',
    kind: 'instance',
    software: { name: 'medtwin test server', version: '1.0.0' },
    implementation: { description: 'In memory, on loopback, for tests', url: options.baseUrl },
    fhirVersion: options.fhirVersion,
    format: ['json'],
    rest: [
      {
        mode: 'server',
        ...(isSecured && {
          security: {
            service: [
              {
                coding: [
                  { system: 'http://terminology.hl7.org/CodeSystem/restful-security-service', code: 'SMART-on-FHIR' },
                ],
              },
            ],
            extension: [
              { url: 'http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris', extension: [oauth] },
            ],
          },
        }),
        resource: resourceTypes.filter((type) => type !== 'Parameters').map((type) => resourceOf(type)),
        interaction: options.interactions.map((code) => ({ code })),
        operation: [
          { name: 'export', definition: 'http://hl7.org/fhir/uv/bulkdata/OperationDefinition/export' },
          { name: 'import', definition: 'http://example.org/OperationDefinition/import' },
        ],
      },
    ],
  };
}

function resourceOf(type) {
  return {
    type,
    interaction: INTERACTIONS.map((code) => ({ code })),
    versioning: 'versioned-update',
    readHistory: true,
    updateCreate: true,
    conditionalCreate: true,
    conditionalUpdate: true,
    conditionalDelete: 'single',
    referencePolicy: ['literal', 'local'],
    searchParam: Object.values(core.getSearchParameters(type) ?? {})
      .filter((parameter) => ['token', 'reference', 'date', 'string', 'uri'].includes(parameter.type))
      .map(({ code, type: kind }) => ({ name: code, type: kind })),
  };
}

export function smartConfiguration(options) {
  const root = options.baseUrl.replace(/\/fhir$/, '');
  return {
    token_endpoint: `${root}/auth/token`,
    token_endpoint_auth_methods_supported: ['private_key_jwt'],
    token_endpoint_auth_signing_alg_values_supported: ['RS384', 'ES384'],
    grant_types_supported: ['client_credentials'],
    scopes_supported: ['system/*.cruds', 'system/*.read', 'system/*.write'],
    capabilities: ['client-confidential-asymmetric', 'permission-v1', 'permission-v2'],
  };
}
