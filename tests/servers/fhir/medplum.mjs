// The npm packages, found where scripts/peers installed them: this folder holds only our own files.
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import path from 'node:path';

const repository = fileURLToPath(new URL('../../../', import.meta.url));
export const peersFolder = process.env.MEDTWIN_PEERS ?? path.join(repository, '.peers');
export const coreFolder = path.join(peersFolder, 'core', 'package');

globalThis.WebSocket ??= class {}; // @medplum/core names it when it is loaded, and Node below 22 has none

const require = createRequire(path.join(peersFolder, 'fhir_server', 'package.json'));
export const core = require('@medplum/core');
export const router = require('@medplum/fhir-router');
