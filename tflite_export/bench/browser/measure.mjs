// Times files by turns in one runtime; `feeds` may be a function of the inputs that the runtime sees.
//
//   file:   {name, content: Uint8Array, feeds: [[{name, type, shape, data}]]: the inputs of several inferences}
//   result: {name, inputs, init, first: ms, turns: [[ms]], outputs: [[{name, type, shape, data}]] of each feed, profile} or {name, error}

import {arrayOf, complaints} from './engines.mjs';

// Rounds of a run; steps of the clock that a time must have at least.
const TURNS = 10, TICKS = 20;

// Shapes and numbers of values must fit; order is by name where the runtime knows the names, else as given.
function arranged(model, feed) {
  if (feed.length !== model.inputs.length) {
    throw new Error(`the runtime sees ${model.inputs.length} inputs, the file has ${feed.length}`);
  }
  const names = new Set(feed.map((input) => input.name));
  const byName = model.inputs.every((input) => names.has(input.name));
  return model.inputs.map((input, index) => {
    const given = byName ? feed.find((one) => one.name === input.name) : feed[index];
    if (given.type !== input.type) throw new Error(`input ${input.name} is ${given.type}, the runtime takes ${input.type}`);
    return given;
  });
}

async function opened(runtime, file, options) {
  const begin = performance.now();
  const model = await runtime.open(file.content, options);
  const init = performance.now() - begin;
  const given = typeof file.feeds === 'function' ? file.feeds(model.inputs) : file.feeds;
  const feeds = given.map((feed) => {
    const inputs = arranged(model, feed);
    return [inputs.map((input) => arrayOf(input.type, input.data)), inputs.map((input) => input.shape)];
  });
  return {model, feeds, init};
}

async function tried(runtime, file, options) {
  const {model, feeds, init} = await opened(runtime, file, options);
  const outputs = [];
  let first = 0;
  for (const [index, [arrays, shapes]] of feeds.entries()) {
    model.feed(arrays, shapes);
    const begin = performance.now();
    await model.run();
    if (!index) first = performance.now() - begin;
    outputs.push(await model.read());
  }
  // A WebAssembly engine compiles first quickly and then, while the code runs, well: until then times are several-fold.
  const begin = performance.now();
  let count = 0, spent = 0;
  do {
    await model.run();
    count++;
    spent = performance.now() - begin;
  } while (spent < options.warm || !spent);
  // A browser's clock is coarse: an inference that it cannot tell is timed several at once.
  const repeat = Math.max(1, Math.ceil((TICKS * tick()) / (spent / count)));
  const names = model.outputs.map((output) => output.name);
  const named = outputs.map((read) => read.map((output, index) => ({...output, name: names[index]})));
  const {inputs} = model;
  return {model, feeds, repeat, result: {name: file.name, inputs, init, first, turns: [], outputs: named, profile: []}};
}

export async function measure(runtime, files, {runs, profile = false, warm = 1000, said = [], progress = () => {}}) {
  const opened = [];
  for (const file of files) {
    await progress(`${file.name}: opening`);
    try {
      opened.push(await complaints(said, () => tried(runtime, file, {profile, warm})));
    } catch (error) {
      opened.push({result: {name: file.name, error: error.message}});
    }
  }
  const blocks = Math.min(TURNS, runs);
  for (let block = 0; block < blocks; block++) {
    const count = Math.floor(((block + 1) * runs) / blocks) - Math.floor((block * runs) / blocks);
    for (const one of opened) {
      if (one.result.error) continue;
      await progress(`${one.result.name}: ${Math.floor((block * runs) / blocks)} of ${runs}`);
      try {
        one.result.turns.push(await complaints(said, () => timed(one, count, opened.length > 1)));
      } catch (error) {
        one.result = {name: one.result.name, error: error.message};
      }
    }
  }
  for (const one of opened) {
    if (one.result.error) continue;
    try {
      if (profile) one.result.profile = one.model.profile();
      one.model.close();
    } catch (error) {
      one.result = {name: one.result.name, error: error.message};
    }
  }
  return opened.map((one) => one.result);
}

// `others`: the caches were theirs meanwhile, one inference brings them back.
async function timed(one, count, others) {
  const times = [];
  if (others) await one.model.run();
  for (let index = 0; index < count; index++) {
    one.model.feed(...one.feeds[(one.next = ((one.next ?? -1) + 1) % one.feeds.length)]);
    const begin = performance.now();
    for (let again = 0; again < one.repeat; again++) await one.model.run();
    times.push((performance.now() - begin) / one.repeat);
  }
  return times;
}

// The smallest step of the clock, milliseconds.
function tick() {
  let least = Infinity;
  for (let sample = 0; sample < 20; sample++) {
    const begin = performance.now();
    let now = begin;
    while (now === begin) now = performance.now();
    least = Math.min(least, now - begin);
  }
  return least;
}

// Bytes as text: a JSON request or answer carries arrays this way.
export function encoded(array) {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let text = '';
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}

export function decoded(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

// A request as it arrives (arrays encoded) -> the answer as it leaves.
export async function answered(runtime, request, contents, {said, progress, place}) {
  const files = request.files.map((file, index) => ({
    name: file.name,
    content: contents[index],
    feeds: file.feeds.map((feed) => feed.map((input) => ({...input, data: decoded(input.data).buffer}))),
  }));
  const results = await measure(runtime, files, {...request, said, progress});
  return {
    runtime: runtime.name,
    version: runtime.version,
    place,
    results: results.map((result) => ({
      ...result,
      outputs: (result.outputs ?? []).map((read) => read.map((one) => ({...one, data: encoded(one.data)}))),
    })),
  };
}
