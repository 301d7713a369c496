// As runner.cpp, for a WebAssembly module: `node runner.mjs MODULE [KERNEL LETTERS]`, by the module's own exports alone.

import { readFileSync, writeSync } from "node:fs";

const [file, name, letters] = process.argv.slice(2);
const kernels = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(file)), {}).exports;

function write(bytes) {
  for (let at = 0; at < bytes.length; ) at += writeSync(1, bytes, at);
}

if (!name) {
  const text = new Uint8Array(kernels.memory.buffer, kernels.alexnet_targets());
  write(text.slice(0, text.indexOf(0)));
} else {
  const input = readFileSync(0);
  let at = 0;
  const next = () => input.readBigInt64LE((at += 8) - 8);
  const list = () => Array.from({ length: Number(next()) }, next);
  const values = list();
  const sizes = list().map(Number);
  const buffers = sizes.map((size) => {
    const place = kernels.malloc(size);
    new Uint8Array(kernels.memory.buffer).set(input.subarray(at, (at += size)), place);
    return place;
  });
  const real = (bits) => new Float64Array(new BigInt64Array([bits]).buffer)[0];
  const convert = { p: (v) => (v < 0n ? 0 : buffers[Number(v)]), i: Number, n: (v) => v, d: real };
  const returned = kernels[name](...values.map((value, i) => convert[letters[i]](value)));
  write(new Uint8Array(new BigInt64Array([BigInt(returned)]).buffer));
  buffers.forEach((place, i) => write(new Uint8Array(kernels.memory.buffer, place, sizes[i])));
}
