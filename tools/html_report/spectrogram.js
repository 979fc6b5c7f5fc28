/* Spectrogram, computed from the audio: 25 ms windows every 5 ms, linear frequency, 70 dB of range. */

const [RATE, WINDOW, HOP, SIZE, RANGE] = [16000, 400, 80, 512, 70];

/* Discrete Fourier transform in place; the length is a power of two. */
function transform(real, imaginary) {
  const n = real.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let half = 1; half < n; half *= 2) {
    for (let k = 0; k < half; k++) {
      const [cos, sin] = [Math.cos(Math.PI * k / half), -Math.sin(Math.PI * k / half)];
      for (let i = k; i < n; i += 2 * half) {
        const re = real[i + half] * cos - imaginary[i + half] * sin;
        const im = real[i + half] * sin + imaginary[i + half] * cos;
        [real[i + half], imaginary[i + half]] = [real[i] - re, imaginary[i] - im];
        real[i] += re;
        imaginary[i] += im;
      }
    }
  }
}

/* Levels in dB, frame by frame, SIZE / 2 of each; frames are centred on multiples of HOP. */
function levels(samples) {
  const frames = Math.max(1, Math.ceil(samples.length / HOP));
  const found = new Float32Array(frames * SIZE / 2);
  for (let frame = 0; frame < frames; frame++) {
    const [real, imaginary] = [new Float32Array(SIZE), new Float32Array(SIZE)];
    for (let i = 0; i < WINDOW; i++) {
      const at = frame * HOP + i - WINDOW / 2;
      const emphasized = (samples[at] ?? 0) - 0.97 * (samples[at - 1] ?? 0);
      real[i] = emphasized * (0.5 - 0.5 * Math.cos(2 * Math.PI * i / WINDOW));
    }
    transform(real, imaginary);
    for (let bin = 0; bin < SIZE / 2; bin++) {
      found[frame * SIZE / 2 + bin] = 10 * Math.log10(real[bin] ** 2 + imaginary[bin] ** 2 + 1e-12);
    }
  }
  return found;
}

/* Draw levels on a canvas in shades from the color of paper to that of ink. */
function drawSpectrogram(canvas, values) {
  const bins = SIZE / 2;
  const style = getComputedStyle(document.body);
  const [paper, ink] = [style.backgroundColor, style.color].map((color) => color.match(/\d+/g).map(Number));
  const top = values.reduce((highest, value) => Math.max(highest, value), -Infinity);
  [canvas.width, canvas.height] = [values.length / bins, bins];
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, bins);
  values.forEach((value, i) => {
    const strength = Math.min(1, Math.max(0, 1 + (value - top) / RANGE)) ** 1.6;
    const pixel = 4 * ((bins - 1 - i % bins) * canvas.width + Math.floor(i / bins));
    for (let c = 0; c < 3; c++) image.data[pixel + c] = paper[c] + (ink[c] - paper[c]) * strength;
    image.data[pixel + 3] = 255;
  });
  context.putImageData(image, 0, 0);
}

async function decodeAudio(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return (await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes.buffer)).getChannelData(0);
}
