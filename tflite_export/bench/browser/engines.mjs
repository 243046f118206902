// The two WebAssembly runtimes behind one form, in Node and in a browser.
//
//   runtime: {name, version, open(content, {profile}) -> model}
//   model:   {inputs, outputs: [{name, type, shape}], feed([typed array]), run(), read() -> [{type, shape, data}],
//             profile() -> [{kind, name, ms}], close()}
//
// Both may write to the console instead of throwing: see `watched` and `complaints`.

const ARRAYS = {
  float32: Float32Array, int32: Int32Array, uint32: Uint32Array, int16: Int16Array, uint16: Uint16Array,
  int8: Int8Array, uint8: Uint8Array, bool: Uint8Array, int64: BigInt64Array, float64: Float64Array,
};

export function arrayOf(type, buffer) {
  const kind = ARRAYS[type];
  if (!kind) throw new Error(`values of type ${type} cannot be handed to this runtime`);
  return new kind(buffer);
}

// Lines that the runtimes wrote to the console. They take hold of the console's functions when they load: call this first.
export function watched() {
  const said = [];
  for (const level of ['log', 'info', 'warn', 'error', 'debug']) {
    console[level] = (...words) => said.push(...words.map(String).join(' ').split('\n').map((line) => line.trim()));
  }
  return said;
}

const REMARK = /^(INFO|VERBOSE|WARNING)/, COMPLAINT = /^ERROR|\bERROR:|failed to|Aborted|unresolved/i;

// Runs `work`; lines that tell of a failure meanwhile become an error. A runtime that failed to prepare a file may go on
// and compute garbage, quickly.
export async function complaints(said, work) {
  const from = said.length;
  const bad = () => [...new Set(said.slice(from).filter((line) => !REMARK.test(line) && COMPLAINT.test(line)))].slice(-3);
  let found;
  try {
    found = await work();
  } catch (error) {
    const words = error instanceof Error ? error.message || error.name : String(error);
    throw new Error([words, ...bad().filter((line) => !words.includes(line))].join(' | '));
  }
  if (bad().length) throw new Error(bad().join(' | '));
  return found;
}

// LiteRT.js. `library` is the module @litertjs/core, already loaded with loadLiteRt.
export function litert(library, version) {
  return {
    name: 'LiteRT.js',
    version,
    async open(content) {
      const model = await library.loadAndCompile(content, {accelerator: 'wasm'});
      let tensors = [], results = [];
      const drop = (list) => list.forEach((tensor) => tensor.deleted || tensor.delete());
      const described = (details) => details.map((one) => ({name: one.name, type: one.dtype, shape: [...one.shape]}));
      return {
        inputs: described(model.getInputDetails()),
        outputs: described(model.getOutputDetails()),
        feed(arrays, shapes) {
          drop(tensors);
          tensors = arrays.map((array, index) => new library.Tensor(array, shapes[index]));
        },
        async run() {
          drop(results);
          results = await model.run(tensors);
        },
        async read() {
          return results.map((tensor) => ({
            type: tensor.type.dtype, shape: [...tensor.type.layout.dimensions], data: tensor.toTypedArray().slice(),
          }));
        },
        profile: () => [],
        close() {
          drop(tensors);
          drop(results);
          model.delete();
        },
      };
    },
  };
}

// tfjs-tflite. `factory` makes an Emscripten module; each file gets one of its own, since an abort ends the module.
export function tfjs(factory, options, version) {
  return {
    name: 'tfjs-tflite',
    version,
    async open(content, {profile = false} = {}) {
      const print = (line) => console.warn(line);
      const wasm = await factory({print, printErr: print, ...options});
      const place = wasm._malloc(content.length);
      wasm.HEAPU8.set(content, place);
      const status = wasm.TFLiteWebModelRunner.CreateFromBufferAndOptions(place, content.length, {
        numThreads: 1, enableProfiling: profile, useSignatureRunner: false, maxProfilingBufferEntries: 4096,
      });
      if (!status.ok()) throw new Error(status.errorMessage());
      const model = status.value();
      const listed = (vector) => Array.from({length: vector.size()}, (_, index) => vector.get(index));
      const inputs = listed(model.GetInputs());
      const sizes = (shape) => (String(shape) ? String(shape).split(',').map(Number) : []);
      const described = (one) => ({name: one.name, type: one.dataType, shape: sizes(one.shape)});
      return {
        inputs: inputs.map(described),
        outputs: listed(model.GetOutputs()).map(described),
        feed(arrays) {
          arrays.forEach((array, index) => {
            const held = inputs[index].data();
            if (held.length !== array.length) {
              throw new Error(`input ${inputs[index].name} takes ${held.length} values, not ${array.length}`);
            }
            held.set(array);
          });
        },
        run() {
          if (model.Infer() === false) throw new Error('the inference failed');
        },
        async read() {
          // Asked for anew: an output whose size the values decide lies elsewhere after each inference.
          return listed(model.GetOutputs()).map((one) => ({...described(one), data: one.data().slice()}));
        },
        profile() {
          return listed(model.GetProfilingResults()).map((row) => ({
            kind: row.nodeType, name: row.nodeName, ms: row.nodeExecMs,
          }));
        },
        close() {
          model.delete();
          wasm._free(place);
        },
      };
    },
  };
}
