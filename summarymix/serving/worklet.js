// Collects the samples of its input, mixed to one channel, into packets of 40 ms, and posts them.
class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.packet = new Float32Array(Math.round(sampleRate / 25));
    this.filled = 0;
    this.ended = false;
    this.port.onmessage = () => {  // the end: the last packet may be short
      this.ended = true;
      this.post();
      this.port.postMessage(null);
    };
  }

  process([channels]) {
    if (this.ended) return false;
    const frames = channels.length ? channels[0].length : 0;
    for (let i = 0; i < frames; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      this.packet[this.filled++] = sum / channels.length;
      if (this.filled === this.packet.length) this.post();
    }
    return true;
  }

  post() {
    this.port.postMessage(this.packet.slice(0, this.filled));
    this.filled = 0;
  }
}

registerProcessor("recorder", Recorder);
