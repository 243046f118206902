// The page: files that are dropped are timed and drawn; an address with #job=KEY does the server's job instead.

import {litert, tfjs, watched} from './engines.mjs';
import {answered, measure} from './measure.mjs';

const said = watched();
const meanings = await (await fetch('meanings.json')).json();
const at = (id) => document.getElementById(id);
const pause = () => new Promise((done) => setTimeout(done));
const loaded = {};

async function versionOf(name) {
  return (await (await fetch(`/modules/${name}/package.json`)).json()).version;
}

const LOADERS = {
  'litert.js': async () => {
    const library = await import('@litertjs/core');
    await library.loadLiteRt('/modules/@litertjs/core/wasm/', {jspi: false, threads: false});
    return litert(library, await versionOf('@litertjs/core'));
  },
  'tfjs-tflite': async () => {
    const folder = '/modules/@tensorflow/tfjs-tflite/wasm/';
    await new Promise((done, failed) => {
      const script = document.createElement('script');
      script.src = folder + 'tflite_web_api_cc_simd.js';
      script.onload = done;
      script.onerror = () => failed(new Error('tfjs-tflite could not be loaded'));
      document.head.append(script);
    });
    const factory = globalThis.tflite_web_api_ModuleFactory;
    return tfjs(factory, {locateFile: (name) => folder + name}, await versionOf('@tensorflow/tfjs-tflite'));
  },
};

function runtimeOf(kind) {
  return (loaded[kind] ??= LOADERS[kind]());
}

function place() {
  const brand = navigator.userAgentData?.brands?.find((one) => /Chromium/.test(one.brand));
  return brand ? `Chromium ${brand.version}` : navigator.userAgent;
}

async function job(key) {
  const post = (what, body) => fetch(`/${what}/${key}`, {method: 'POST', body});
  try {
    const request = await (await fetch(`/job/${key}`)).json();
    const contents = await Promise.all(request.files.map(async (_, index) =>
      new Uint8Array(await (await fetch(`/job/${key}/${index}`)).arrayBuffer())));
    const runtime = await runtimeOf(request.runtime);
    const progress = (line) => post('progress', line);
    await post('answer', JSON.stringify(await answered(runtime, request, contents, {said, progress, place: place()})));
  } catch (error) {
    await post('answer', JSON.stringify({error: String(error.message ?? error)}));
  }
}

// Made up values of an input; a size that is open becomes 1.
function madeUp(input) {
  const shape = input.shape.map((size) => (size < 0 ? 1 : size));
  const count = shape.reduce((product, size) => product * size, 1);
  const makers = {
    float32: () => Float32Array.from({length: count}, Math.random),
    int8: () => Int8Array.from({length: count}, () => Math.random() * 256 - 128),
    uint8: () => Uint8Array.from({length: count}, () => Math.random() * 256),
    int16: () => Int16Array.from({length: count}, () => Math.random() * 65536 - 32768),
    int32: () => Int32Array.from({length: count}, () => Math.random() * 2),
    bool: () => Uint8Array.from({length: count}, () => Math.random() * 2),
    int64: () => BigInt64Array.from({length: count}, () => BigInt(Math.random() < 0.5 ? 0 : 1)),
  };
  if (!makers[input.type]) throw new Error(`values of type ${input.type} cannot be made up`);
  return {name: input.name, type: input.type, shape, data: makers[input.type]().buffer};
}

function meaning(error) {
  for (const [pattern, words] of meanings) {
    const match = new RegExp(pattern).exec(error);
    if (match) return words.replace('{0}', match[1] ?? '');
  }
  return error;
}

const element = (name, text = '', kind = '') => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};

const quantile = (sorted, share) => {
  const place = share * (sorted.length - 1), low = Math.floor(place);
  return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
};

function spoken(ms) {
  for (const [limit, factor, unit] of [[0.9995, 1e3, 'µs'], [999.5, 1, 'ms'], [Infinity, 1e-3, 's']]) {
    const value = ms * factor;
    if (ms < limit) return `${value.toFixed(value < 9.995 ? 2 : value < 99.95 ? 1 : 0)} ${unit}`;
  }
  return '';
}

const bytes = (count) => (count < 1e6 ? `${(count / 1e3).toFixed(1)} kB` : `${(count / 1e6).toFixed(2)} MB`);

// Each inference a dot between the fastest and the 98th percentile, the median a line.
function strip(times, sorted) {
  const space = 'http://www.w3.org/2000/svg', low = sorted[0];
  const width = Math.max(240, at('results').clientWidth - 42); // drawn in real pixels: letters stay legible on a phone
  const high = Math.max(quantile(sorted, 0.98), low * 1.02 + 1e-6);
  const x = (ms) => 8 + (Math.min(ms, high) - low) / (high - low) * (width - 16);
  const picture = document.createElementNS(space, 'svg');
  picture.setAttribute('class', 'times');
  picture.setAttribute('viewBox', `0 0 ${width} 74`);
  picture.setAttribute('role', 'img');
  picture.setAttribute('aria-label', `${times.length} inferences between ${spoken(low)} and ${spoken(sorted.at(-1))}`);
  const add = (name, attributes, text) => {
    const made = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    picture.append(made);
  };
  add('line', {class: 'axis', x1: 8, x2: width - 8, y1: 54, y2: 54});
  times.forEach((ms, index) => add('circle', {cx: x(ms), cy: 12 + ((index * 7) % 33), r: 3.5}));
  const median = quantile(sorted, 0.5);
  add('line', {class: 'median', x1: x(median), x2: x(median), y1: 4, y2: 54});
  add('text', {x: 8, y: 70}, spoken(low));
  add('text', {x: width - 8, y: 70, 'text-anchor': 'end'}, spoken(high));
  return picture;
}

function card(result, runtime) {
  const made = element('article');
  made.append(element('h2', result.name));
  made.append(element('p', `${bytes(result.size)} · ${runtime.name} ${runtime.version}`, 'about'));
  if (result.error) {
    made.classList.add('failed');
    made.append(element('p', meaning(result.error), 'reason'));
    return made;
  }
  const times = result.turns.flat(), sorted = [...times].sort((a, b) => a - b);
  const list = element('dl', '', 'figures');
  for (const [name, ms, kind] of [
    ['median', quantile(sorted, 0.5), 'main'], ['fastest', sorted[0]], ['90 % below', quantile(sorted, 0.9)],
    ['first', result.first], ['loading', result.init],
  ]) {
    const pair = element('div', '', kind);
    pair.append(element('dt', name), element('dd', spoken(ms)));
    list.append(pair);
  }
  const tensors = element('ul', '', 'tensors');
  for (const [side, all] of [['in', result.inputs], ['out', result.outputs[0]]]) {
    for (const one of all) {
      const item = element('li');
      item.append(element('b', side), ` ${one.name || 'unnamed'} ${one.type}[${one.shape.join(', ')}]`);
      tensors.append(item);
    }
  }
  made.append(list, strip(times, sorted), tensors);
  return made;
}

function comparison(results) {
  const made = element('div', '', 'side'), list = element('ol');
  const medians = results.map((result) => quantile([...result.turns.flat()].sort((a, b) => a - b), 0.5));
  made.append(element('h2', 'Side by side'), list);
  results.forEach((result, index) => {
    const item = element('li'), track = element('div', '', 'track'), fill = element('div', '', 'fill');
    fill.style.width = `${(100 * medians[index]) / Math.max(...medians)}%`;
    track.append(fill);
    const ratio = index ? ` · ${(medians[index] / medians[0]).toFixed(2)}×` : '';
    item.append(element('span', result.name, 'name'), track, element('span', spoken(medians[index]) + ratio, 'value'));
    list.append(item);
  });
  return made;
}

async function timed(list) {
  const chosen = [...list].filter((file) => file.name.endsWith('.tflite'));
  if (!chosen.length) return void (at('status').textContent = 'No .tflite file among these.');
  const setting = (name) => document.querySelector(`input[name=${name}]:checked`).value;
  const progress = async (line) => {
    at('status').textContent = line;
    await pause();
  };
  document.body.classList.add('busy');
  try {
    await progress('Loading the runtime…');
    const runtime = await runtimeOf(setting('runtime'));
    const files = await Promise.all(chosen.map(async (file) => ({
      name: file.name, content: new Uint8Array(await file.arrayBuffer()), feeds: (inputs) => [inputs.map(madeUp)],
    })));
    const found = await measure(runtime, files, {runs: Number(setting('runs')), said, progress});
    const results = found.map((result, index) => ({...result, size: files[index].content.length}));
    const good = results.filter((result) => !result.error);
    at('results').prepend(...(good.length > 1 ? [comparison(good)] : []), ...results.map((one) => card(one, runtime)));
    at('status').textContent = `${good.length} of ${results.length} ran`;
  } catch (error) {
    delete loaded[setting('runtime')];
    at('status').textContent = meaning(String(error.message ?? error));
  } finally {
    document.body.classList.remove('busy');
  }
}

const key = /^#job=([\w-]+)$/.exec(location.hash)?.[1];
if (key) {
  await job(key);
} else {
  const drop = at('drop');
  at('files').addEventListener('change', (event) => timed(event.target.files));
  drop.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' || event.key === ' ') at('files').click();
  });
  for (const kind of ['dragover', 'dragleave', 'drop']) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle('over', kind === 'dragover');
      if (kind === 'drop') timed(event.dataTransfer.files);
    });
  }
}
globalThis.ready = true;
