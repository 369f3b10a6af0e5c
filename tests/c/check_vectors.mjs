// The vectors of check_vectors.c on the core built for wasm32: node check_vectors.mjs CORE.wasm VECTORS
import { readFileSync } from 'node:fs'

const [, , corePath, vectorsPath] = process.argv
const { exports: core } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(corePath)))
core.memory.grow(512)
const vectors = readFileSync(vectorsPath)
const TENSOR_SIZE = 48 // data, padding, size (u64), dims (8 u32)

let heap = core.heap_start()
const view = () => new DataView(core.memory.buffer)
const bytes = (at, size) => new Uint8Array(core.memory.buffer, at, size)

function alloc(size) {
  const at = (heap + 15) & ~15
  heap = at + size
  return at
}

function place(data) {
  const at = alloc(data.length)
  bytes(at, data.length).set(data)
  return at
}

function ok(status, what) {
  if (status !== 0) throw new Error(`${what}: status ${status}`)
}

let position = 0
const u32 = () => vectors.readUInt32LE((position += 4) - 4)
const take = () => {
  const size = u32()
  return vectors.subarray(position, (position += size))
}

const equal = (at, expected) => Buffer.compare(Buffer.from(bytes(at, expected.length)), expected) === 0

function checkVector(index) {
  const result = alloc(8)
  const size = () => view().getUint32(result, true)
  const descriptor = take()
  const descriptorAt = place(descriptor)
  ok(core.irs_schema_size(descriptorAt, descriptor.length, result), 'schema_size')
  const memorySize = size()
  ok(core.irs_schema_open(result, alloc(memorySize), memorySize, descriptorAt, descriptor.length), 'schema_open')
  const schema = size()
  const count = u32()
  const tensors = alloc(count * TENSOR_SIZE)
  for (let i = 0; i < count; i++) {
    const at = tensors + i * TENSOR_SIZE
    const dims = Array.from({ length: u32() }, u32)
    const data = take()
    const dataAt = place(data)
    view().setUint32(at, dataAt, true)
    view().setBigUint64(at + 8, BigInt(data.length), true)
    dims.forEach((dim, axis) => view().setUint32(at + 16 + 4 * axis, dim, true))
  }
  const frame = take()
  const expected = take()
  ok(core.irs_frame_bound(schema, tensors, result), 'frame_bound')
  const bound = size()
  ok(core.irs_workspace_size(schema, tensors, result), 'workspace_size')
  const scratchSize = size()
  const scratch = alloc(scratchSize)
  const target = alloc(bound)
  ok(core.irs_encode(schema, 0, tensors, scratch, scratchSize, target, bound, result), 'encode')
  if (size() !== frame.length || !equal(target, frame)) throw new Error(`vector ${index}: another frame`)
  for (let i = 0; i < count; i++) {
    const length = Number(view().getBigUint64(tensors + i * TENSOR_SIZE + 8, true))
    bytes(view().getUint32(tensors + i * TENSOR_SIZE, true), length).fill(0xee)
  }
  ok(core.irs_decode(schema, 0, target, frame.length, tensors, scratch, scratchSize), 'decode')
  for (let i = 0, offset = 0; i < count; i++) {
    const length = Number(view().getBigUint64(tensors + i * TENSOR_SIZE + 8, true))
    const at = view().getUint32(tensors + i * TENSOR_SIZE, true)
    if (!equal(at, expected.subarray(offset, offset + length))) throw new Error(`vector ${index}: other tensors`)
    offset += length
  }
  return place(frame)
}

const count = u32()
let digest = 0
for (let index = 0; index < count; index++) {
  const start = heap
  const frameAt = checkVector(index)
  digest = core.irs_crc32c(digest, frameAt, heap - frameAt)
  heap = start
}
console.log(`${count} vectors, digest ${(digest >>> 0).toString(16).padStart(8, '0')}`)
