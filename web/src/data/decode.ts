// Arrays as they stand in a page: base64, perhaps deflated, in the format that is named beside them.

export interface Packed {
  dtype: "f32" | "f16" | "bf16" | "i32" | "log8";
  data: string;
  deflated?: boolean;
  /** log8: natural logarithms of the values of codes 1 and 255; code 0 is zero. */
  range?: [number, number];
}

export function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let k = 0; k < binary.length; k++) bytes[k] = binary.charCodeAt(k);
  return bytes;
}

async function inflate(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

let halves: Float32Array | undefined;

/** All 65,536 half-precision numbers: a look-up is quicker than taking each apart. */
function halfTable(): Float32Array {
  if (halves) return halves;
  halves = new Float32Array(65536);
  for (let code = 0; code < 65536; code++) {
    const exponent = (code >> 10) & 31;
    const fraction = code & 1023;
    let value: number;
    if (exponent === 0) value = fraction * 2 ** -24;
    else if (exponent === 31) value = fraction ? NaN : Infinity;
    else value = (1 + fraction / 1024) * 2 ** (exponent - 15);
    halves[code] = code & 0x8000 ? -value : value;
  }
  return halves;
}

async function raw(packed: Packed): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = bytesOf(packed.data);
  return packed.deflated ? inflate(bytes) : bytes;
}

export async function integers(packed: Packed): Promise<Int32Array> {
  return new Int32Array((await raw(packed)).buffer);
}

export async function floats(packed: Packed): Promise<Float32Array> {
  const bytes = await raw(packed);
  switch (packed.dtype) {
    case "f32":
      return new Float32Array(bytes.buffer);
    case "f16": {
      const table = halfTable();
      return Float32Array.from(new Uint16Array(bytes.buffer), (code) => table[code]);
    }
    case "bf16": {
      const codes = new Uint16Array(bytes.buffer);
      const bits = new Uint32Array(codes.length);
      for (let k = 0; k < codes.length; k++) bits[k] = codes[k] << 16;
      return new Float32Array(bits.buffer);
    }
    case "log8": {
      const [low, high] = packed.range ?? [0, 0];
      const table = Float32Array.from({ length: 256 }, (_, code) =>
        code ? Math.exp(low + ((code - 1) / 254) * (high - low)) : 0,
      );
      const values = new Float32Array(bytes.length);
      for (let k = 0; k < bytes.length; k++) values[k] = table[bytes[k]];
      return values;
    }
    case "i32":
      return Float32Array.from(new Int32Array(bytes.buffer));
  }
}
