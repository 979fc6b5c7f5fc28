#!/usr/bin/env bash
# Compares this library on a GPU with float64 on the CPU, then measures training steps, losses, depthwise convolutions and
# streams, in under eight minutes. Writes a JSON file for each measurement, and a page of all of them, README.md. The
# exit status is 1 if a comparison fails.
#
#   tools/gpu_check.sh [--out DIR] [--device DEVICE] [--tiny]
#
#   --out DIR        folder for figures and page (gpu-check)
#   --device DEVICE  cuda, cuda:1, …, or cpu (cuda)
#   --tiny           sizes for a test of this script on a CPU
set -euo pipefail
tools=$(CDPATH= cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$tools/print_header.sh"

out=gpu-check device=cuda tiny=false
while (($#)); do
  case $1 in
    --out | --device)
      (($# > 1)) || { echo "gpu_check.sh: option $1 needs a value; see --help" >&2 && exit 2; }
      printf -v "${1#--}" %s "$2" && shift 2
      ;;
    --tiny) tiny=true && shift ;;
    -h | --help) print_header "$0" && exit ;;
    *) echo "gpu_check.sh: unknown option $1; see --help" >&2 && exit 2 ;;
  esac
done
mkdir -p "$out"
out=$(CDPATH= cd "$out" && pwd)

if $tiny; then
  cd "$tools/../egs/mini/ASR"
  small=(conformer) large=(conformer) precision=fp32 seconds=1
  short=(--seconds 2 --rounds 1) long=(--seconds 4 --rounds 1)
  loss=(--batch 2 --frames 20 --symbols 4 --vocab 10 --rounds 1)
  depthwise=(--batch 2 --frames 20 --dim 8 --rounds 1)
  streams=(--seconds 2 --paced-seconds 1 --max-streams 2)
else
  cd "$tools/../egs/librispeech/ASR"
  small=(conformer_small zipformer_small) large=(conformer zipformer) precision=bf16 seconds=8
  short=(--seconds 20 --batch 30 --rounds 10) long=(--seconds 120 --batch 5 --rounds 5)
  loss=(--batch 32 --frames 500 --symbols 100 --rounds 20)
  depthwise=(--batch 30 --frames 500 --dim 512 --rounds 20)
  streams=(--seconds 120 --paced-seconds 5 --resolution 0.2)
fi

# Prints --config options of the models $@ and of their self-attention baselines.
configs() {
  local name
  for name; do echo "--config conf/$name.yaml --config conf/$name.yaml conf/attention.yaml"; done
}

# Runs a program of tools/, and shows its command.
run() {
  echo "== $*"
  python "$tools/$1" "${@:2}"
}

failed=0
run check_gpu.py $(configs "${small[@]}") --seconds $seconds --device "$device" || failed=1
training=(encoder $(configs "${large[@]}") --parts model --modes chunked --device "$device" --precision $precision)
run benchmark.py "${training[@]}" "${short[@]}" --json "$out/training-short.json"
run benchmark.py "${training[@]}" "${long[@]}" --json "$out/training-long.json"
run benchmark.py loss "${loss[@]}" --device "$device" --json "$out/loss.json"
run benchmark.py depthwise "${depthwise[@]}" --device "$device" --precision $precision --json "$out/depthwise.json"
run benchmark.py streaming $(configs "${large[@]}") --left-chunks 4 "${streams[@]}" --device "$device" \
  --json "$out/streaming.json"
run report.py "$out"/*.json --out "$out"
exit $failed
