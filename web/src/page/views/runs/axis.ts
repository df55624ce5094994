// Where the ticks of an axis stand, and how its numbers are written.

/** Round places that cover a range, about `count` of them. */
export function ticks(low: number, high: number, count: number): number[] {
  if (!(high > low)) return [low];
  const rough = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const found: number[] = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step || 0); // no minus zero
  return found;
}

/** Places for a logarithmic axis: powers of ten, and 2 and 5 times them where there is room. */
export function powers(low: number, high: number, count: number): number[] {
  for (const factors of [[1, 2, 5], [1, 5], [1]]) {
    const found: number[] = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const factor of factors) {
        const at = factor * 10 ** power;
        if (at >= low * 0.999999 && at <= high * 1.000001) found.push(at);
      }
    }
    if (found.length <= Math.max(2, count * 1.5)) return found.length >= 2 ? found : ticks(low, high, count);
  }
  return ticks(low, high, count);
}

/** A number for reading: few digits, and none that mean nothing. */
export function short(value: number, language: string): string {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e9)) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  const maximumFractionDigits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 0.1 ? 3 : 5;
  return new Intl.NumberFormat(language, { maximumFractionDigits }).format(value);
}

/** Seconds for reading: 8 s, 2:05 min, 1:02 h. */
export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  const two = (value: number): string => String(value).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)} min`;
  return `${Math.floor(whole / 3600)}:${two(Math.floor((whole % 3600) / 60))} h`;
}
