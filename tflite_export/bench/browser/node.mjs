// node node.mjs RUNTIME MODULES < request.json > answer.json: measures files in a runtime without a browser.

import fs from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';
import {createRequire} from 'node:module';
import {pathToFileURL} from 'node:url';

import {litert, tfjs, watched} from './engines.mjs';
import {answered} from './measure.mjs';

const [kind, modules] = process.argv.slice(2);
const versionOf = (name) => JSON.parse(fs.readFileSync(path.join(modules, name, 'package.json'), 'utf8')).version;

// LiteRT.js expects a worker of a browser: what it asks of one is answered from the disk.
async function loadLitert() {
  const folder = path.join(modules, '@litertjs/core');
  const onDisk = (url) => String(url?.url ?? url).replace(/^file:\/\//, '');
  const entry = path.join(folder, 'dist', 'index.js');
  Object.assign(globalThis, {
    self: globalThis,
    require: createRequire(entry),
    __dirname: path.join(folder, 'wasm'),
    __filename: path.join(folder, 'wasm', 'litert.js'),
    importScripts: (url) => vm.runInThisContext(fs.readFileSync(onDisk(url), 'utf8'), {filename: onDisk(url)}),
    fetch: async (url) => new Response(fs.readFileSync(onDisk(url)), {
      headers: {'content-type': onDisk(url).endsWith('.wasm') ? 'application/wasm' : 'application/octet-stream'},
    }),
  });
  const library = await import(pathToFileURL(entry));
  await library.loadLiteRt(path.join(folder, 'wasm') + '/', {jspi: false, threads: false});
  return litert(library, versionOf('@litertjs/core'));
}

function loadTfjs() {
  const folder = path.join(modules, '@tensorflow/tfjs-tflite/wasm');
  const factory = createRequire(path.join(folder, 'index.js'))('./tflite_web_api_cc_simd.js');
  const wasmBinary = fs.readFileSync(path.join(folder, 'tflite_web_api_cc_simd.wasm'));
  return tfjs(factory, {wasmBinary}, versionOf('@tensorflow/tfjs-tflite'));
}

const said = watched(); // nor may anything but the answer go to standard output
const request = JSON.parse(fs.readFileSync(0, 'utf8'));
const runtime = kind === 'litert.js' ? await loadLitert() : loadTfjs();
const contents = request.files.map((file) => new Uint8Array(fs.readFileSync(file.path)));
const progress = (line) => process.stderr.write(`progress: ${line}\n`);
const answer = await answered(runtime, request, contents, {said, progress, place: `Node ${process.versions.node}`});
fs.writeFileSync(1, JSON.stringify(answer));
process.exit(0);
